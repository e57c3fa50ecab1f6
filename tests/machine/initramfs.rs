//! Makes the guest's operating system: an initramfs of programs with their libraries, of kernel modules, and of files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An archive in cpio's "newc" format, which the kernel unpacks
/// (Documentation/driver-api/early-userspace/buffer-format.rst).
pub struct Initramfs {
    bytes: Vec<u8>,
    paths: BTreeSet<PathBuf>,
    scratch: PathBuf,
}

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;

/// The magic bytes of an xz file.
const XZ: &[u8] = b"\xFD7zXZ\0";

impl Initramfs {
    /// Makes an empty archive. `scratch`: path of a temporary file.
    pub fn new(scratch: PathBuf) -> Initramfs {
        Initramfs {
            bytes: Vec::new(),
            paths: BTreeSet::new(),
            scratch,
        }
    }

    /// Adds a directory, with those above it.
    pub fn directory(&mut self, path: &str) {
        let path = Path::new(path);
        let above: Vec<_> = path.ancestors().collect();
        for directory in above
            .into_iter()
            .rev()
            .filter(|path| path.parent().is_some())
        {
            self.entry(directory, DIRECTORY, &[]);
        }
    }

    /// Adds a file, with the directories above it.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let parent = Path::new(path).parent().and_then(Path::to_str);
        self.directory(parent.expect("an absolute path"));
        self.entry(Path::new(path), FILE | mode, content);
    }

    /// Adds a program of this machine, with its libraries and without debugging information.
    pub fn program(&mut self, path: &str, program: &Path) {
        output(
            Command::new("strip")
                .arg("-o")
                .arg(&self.scratch)
                .arg(program),
        );
        self.file(path, 0o755, &read(&self.scratch));
        let libraries = output(Command::new("ldd").arg(program));
        let libraries = String::from_utf8_lossy(&libraries);
        for library in libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            self.file(library, 0o755, &read(Path::new(library)));
        }
    }

    /// Adds kernel modules, and a list of them for the first process in the order of loading.
    pub fn modules(&mut self, modules: Vec<(String, Vec<u8>)>) {
        let mut load = String::new();
        for (name, module) in modules {
            let path = format!("/lib/modules/{name}.ko");
            self.module(&path, &module);
            load += &(path + "\n");
        }
        self.file("/lib/modules/load", 0o600, load.as_bytes());
    }

    /// Adds a kernel module without the parts that only slow down its loading: its signature, which strip removes, and
    /// the descriptions of its types.
    fn module(&mut self, path: &str, image: &[u8]) {
        fs::write(&self.scratch, image).expect("a module");
        output(
            Command::new("strip")
                .args(["--strip-debug", "--remove-section=.BTF"])
                .arg(&self.scratch),
        );
        self.file(path, 0o600, &read(&self.scratch));
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) {
        if self.paths.insert(path.to_owned()) {
            let inode = self.paths.len();
            let path = path.to_str().expect("UTF-8").trim_start_matches('/');
            self.header(inode, mode, path, content);
        }
    }

    fn header(&mut self, inode: usize, mode: u32, name: &str, content: &[u8]) {
        let links = 1;
        self.bytes.extend(b"070701");
        #[rustfmt::skip]
        let fields = [
            inode, mode as usize, /* uid */ 0, /* gid */ 0, links, /* mtime */ 0, content.len(),
            /* device */ 0, 0, /* what it is a node of */ 0, 0, name.len() + 1, /* checksum */ 0,
        ];
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Returns the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.header(0, 0, "TRAILER!!!", &[]);
        self.bytes
    }
}

/// Debian's kernel, unpacked.
pub struct Kernel {
    /// The file that a boot loader loads: a program that unpacks the kernel.
    image: PathBuf,
    modules: Vec<PathBuf>,
}

impl Kernel {
    /// Finds it in a directory with the package's layout.
    pub fn find(root: &Path) -> Option<Kernel> {
        let image = fs::read_dir(root.join("boot")).ok()?.find_map(|entry| {
            let path = entry.ok()?.path();
            path.file_name()?
                .to_str()?
                .starts_with("vmlinuz-")
                .then_some(path)
        })?;
        let mut modules = Vec::new();
        let mut left = vec![root.join("lib/modules"), root.join("usr/lib/modules")];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    left.push(path);
                } else if module_name(&path).is_some() {
                    modules.push(path);
                }
            }
        }
        Some(Kernel { image, modules })
    }

    /// Returns the file that a boot loader loads.
    pub fn packed(self) -> PathBuf {
        self.image
    }

    /// Returns what QEMU boots fastest: the kernel itself, unpacked to this file, since on an emulated processor
    /// unpacking takes twice as long as the rest of the kernel's start. A kernel that is not packed by xz unpacks
    /// itself.
    pub fn bootable(&self, unpacked: PathBuf) -> PathBuf {
        let image = read(&self.image);
        let payload = payload(&image);
        if !payload.starts_with(XZ) {
            return self.image.clone();
        }
        let packed = unpacked.with_extension("xz");
        fs::write(&packed, payload).expect("a packed kernel");
        output(Command::new("xz").args(["-d", "-f"]).arg(packed));
        unpacked
    }

    /// Images of these modules in an order in which they can be loaded, each after those on which it depends. A missing
    /// one is part of the kernel.
    pub fn modules(&self, names: &[&str]) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        for name in names {
            self.module(name, &mut found);
        }
        found
    }

    fn module(&self, name: &str, found: &mut Vec<(String, Vec<u8>)>) {
        let path = self
            .modules
            .iter()
            .find(|path| module_name(path).as_deref() == Some(name));
        if let Some(path) = path
            && !found.iter().any(|(there, _)| there == name)
        {
            let image = if path.extension().is_some_and(|kind| kind == "xz") {
                output(Command::new("xz").arg("-dc").arg(path))
            } else {
                read(path)
            };
            for dependency in dependencies(&image) {
                self.module(&dependency, found);
            }
            found.push((name.to_owned(), image));
        }
    }
}

/// The packed kernel in the file of the boot loader (Documentation/x86/boot.rst: `setup_sects`, `payload_offset`,
/// `payload_length`).
fn payload(image: &[u8]) -> &[u8] {
    let field = |at: usize| {
        let bytes = image[at..at + 4].try_into().expect("four bytes");
        u32::from_le_bytes(bytes) as usize
    };
    // the boot sector is not counted, and zero means four
    let sectors = match image[0x1F1] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let begin = (sectors + 1) * 512 + field(0x248);
    // its last four bytes are its unpacked length, which is not part of the xz data
    &image[begin..begin + field(0x24C) - 4]
}

/// The name of a module from its file: `a-b.ko`, `a-b.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let name = file
        .strip_suffix(".xz")
        .unwrap_or(file)
        .strip_suffix(".ko")?;
    Some(name.replace('-', "_"))
}

/// The dependencies of a module, which are in its section `.modinfo`: `depends=a,b`.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let names = module[at + KEY.len()..].split(|byte| *byte == 0).next();
    String::from_utf8_lossy(names.unwrap_or_default())
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the output of a command that must succeed.
fn output(command: &mut Command) -> Vec<u8> {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}
