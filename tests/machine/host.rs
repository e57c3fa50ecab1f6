//! Checks the requirements of this host for virtual machines.

use std::path::{Path, PathBuf};

use crate::initramfs::{Initramfs, Kernel};

/// The modules of any guest: its network card, and the port for its orders.
const MODULES: [&str; 3] = ["virtio_mmio", "virtio_net", "virtio_console"];

/// The requirements of any machine, and whether each is met.
pub fn needs() -> Vec<(bool, &'static str)> {
    let mut needs = programs(&["qemu-system-x86_64", "setpriv", "strip", "xz"]);
    needs.push((cfg!(target_arch = "x86_64"), "an x86_64 processor"));
    needs.push((
        Kernel::find(&kernel()).is_some(),
        "Debian's kernel (scripts/needs vm-kernel)",
    ));
    needs.push((
        init().exists(),
        "the guest's first process (cargo build --example machine-init, in the tests' profile)",
    ));
    needs
}

/// Programs, and whether each is installed.
pub fn programs(names: &[&'static str]) -> Vec<(bool, &'static str)> {
    let is_there = |name| find(name).is_some();
    names.iter().map(|name| (is_there(name), *name)).collect()
}

/// Path of a program.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// The kernel as the machine boots it fastest.
pub fn bootable(directory: &Path) -> PathBuf {
    kernel_package().bootable(directory.join("vmlinux"))
}

/// The same kernel as a boot loader loads it: it unpacks itself.
pub fn packed() -> PathBuf {
    kernel_package().packed()
}

/// What any guest's operating system has: the first process, and kernel modules.
pub fn guest(directory: &Path, modules: &[&str]) -> Initramfs {
    let mut image = Initramfs::new(directory.join("stripped"));
    for directory in ["/dev", "/proc", "/sys", "/run"] {
        image.directory(directory);
    }
    image.program("/init", &init());
    image.modules(kernel_package().modules(&[&MODULES, modules].concat()));
    image
}

fn kernel_package() -> Kernel {
    Kernel::find(&kernel()).expect("a kernel")
}

/// Where cargo puts programs. A program that is no test lies there itself.
fn built() -> PathBuf {
    let program = match option_env!("CARGO_BIN_EXE_outlast") {
        Some(outlast) => PathBuf::from(outlast),
        None => std::env::current_exe().expect("the path of this program"),
    };
    program.parent().expect("a directory").to_owned()
}

fn init() -> PathBuf {
    built().join("examples/machine-init")
}

/// The directory in which `scripts/needs vm-kernel` unpacks it.
fn kernel() -> PathBuf {
    built()
        .parent()
        .expect("cargo's directory")
        .join("vm-kernel")
}
