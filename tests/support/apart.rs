//! Simulates the network of a second machine on the lab's link: a namespace with a TAP of its own, bridged to the
//! lab's, and an interconnect beside it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::lab::run;
use super::{PATIENCE, wait_for};

/// The addresses of the interconnect, in the lab and in the other namespace.
pub const INTERCONNECT: [&str; 2] = ["10.78.0.1", "10.78.0.2"];
pub const INTERCONNECT_V6: [&str; 2] = ["fd78::1", "fd78::2"];
/// The lab's interface that carries the frames of the other TAP.
pub const LINK: &str = "lan1";

/// The namespace, which exists as long as this process in it.
pub struct Apart(Child);

impl Apart {
    /// Makes the namespace and its links. The lab's TAP is attached to a bridge, whose address is the client's. Both
    /// bridges deliver what clients send to both TAPs.
    pub fn new() -> Apart {
        let holder = Command::new("unshare")
            .args(["--net", "sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare");
        let apart = Apart(holder);
        let own = std::fs::read_link("/proc/thread-self/ns/net").expect("a namespace");
        wait_for("a namespace", PATIENCE, || {
            let other = std::fs::read_link(apart.path()).ok()?;
            (other != own).then_some(())
        });
        let pid = apart.0.id();
        for command in [
            "ip addr flush dev tap0".to_owned(),
            "ip link add br0 type bridge".to_owned(),
            "ip link set tap0 master br0".to_owned(),
            format!("ip link add {LINK} type veth peer name lan0 netns {pid}"),
            format!("ip link set {LINK} master br0"),
            format!("ip link set {LINK} up"),
            "ip addr add 10.77.0.2/24 dev br0".to_owned(),
            "ip addr add fd77::2/64 dev br0 nodad".to_owned(),
            "bridge link set dev tap0 learning off".to_owned(),
            format!("bridge link set dev {LINK} learning off"),
            "ip link set br0 up".to_owned(),
            format!("ip link add ic0 type veth peer name ic1 netns {pid}"),
            format!("ip addr add {}/24 dev ic0", INTERCONNECT[0]),
            format!("ip addr add {}/64 dev ic0 nodad", INTERCONNECT_V6[0]),
            "ip link set ic0 up".to_owned(),
        ] {
            run(&command);
        }
        for command in [
            "ip link set lo up".to_owned(),
            "ip tuntap add tap1 mode tap".to_owned(),
            "ip link add br1 type bridge".to_owned(),
            "ip link set tap1 master br1".to_owned(),
            "ip link set lan0 master br1".to_owned(),
            "ip link set tap1 up".to_owned(),
            "ip link set lan0 up".to_owned(),
            "bridge link set dev tap1 learning off".to_owned(),
            "bridge link set dev lan0 learning off".to_owned(),
            "ip link set br1 up".to_owned(),
            format!("ip addr add {}/24 dev ic1", INTERCONNECT[1]),
            format!("ip addr add {}/64 dev ic1 nodad", INTERCONNECT_V6[1]),
            "ip link set ic1 up".to_owned(),
        ] {
            run(&format!(
                "nsenter --net={} {command}",
                apart.path().display()
            ));
        }
        apart
    }

    /// Returns the path by which processes enter the namespace.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.0.id()))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
