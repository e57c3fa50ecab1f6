//! The requirements of this host for virtual machines.

use std::path::{Path, PathBuf};

use crate::initramfs::{Initramfs, Kernel};
use crate::support::lab::Lab;

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

/// The kernel in the form that the machine boots fastest.
pub fn bootable(lab: &Lab) -> PathBuf {
    kernel_package().bootable(lab.path("vmlinux"))
}

/// The parts of any guest's operating system: the first process, and kernel modules.
pub fn guest(lab: &Lab, modules: &[&str]) -> Initramfs {
    let mut image = Initramfs::new(lab.path("stripped"));
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

/// The directory in which cargo puts programs.
fn built() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_outlast"))
        .parent()
        .expect("a directory")
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
