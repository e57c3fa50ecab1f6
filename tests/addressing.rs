//! Tests a server whose addresses are assigned by dnsmasq: by DHCP, and by router advertisements.

mod support;

use std::fs::File;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

use outlast::control::Status;
use support::client::{Session, anonymous, run};
use support::lab::{Lab, SERVER, SERVER_V6};
use support::server::{PASSWORD, Server, Setup, USER};
use support::{PATIENCE, can_run, has, wait_for};

/// dnsmasq on the lab's link. It ends with the test.
struct Dnsmasq {
    child: Child,
    log: std::path::PathBuf,
}

impl Dnsmasq {
    /// Starts it. `--leasefile-ro` keeps its leases in memory, and `--no-ping` answers at once.
    fn start(lab: &Lab) -> Dnsmasq {
        let log = lab.path("dnsmasq.log");
        let file = File::create(&log).expect("a log");
        let child = Command::new("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--port=0",
                "--pid-file",
            ])
            .args([
                "--user=root",
                "--group=root",
                "--log-facility=-",
                "--log-dhcp",
            ])
            .args([
                "--interface=tap0",
                "--bind-interfaces",
                "--leasefile-ro",
                "--no-ping",
            ])
            .args(["--dhcp-range=10.77.0.100,10.77.0.110,255.255.255.0,2m"])
            .args([
                "--dhcp-option=3,10.77.0.2",
                "--enable-ra",
                "--dhcp-range=fd77::,ra-only,64,2h",
            ])
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the log"))
            .stderr(file)
            .spawn()
            .expect("dnsmasq");
        Dnsmasq { child, log }
    }

    fn count(&self, message: &str) -> usize {
        let log = std::fs::read_to_string(&self.log).expect("its log");
        log.lines().filter(|line| line.contains(message)).count()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_assigned(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => (100..=110).contains(&v4.octets()[3]),
        IpAddr::V6(v6) => v6.segments()[..4] == [0xfd77, 0, 0, 0],
    }
}

/// Waits until the server has an address of each family.
fn assigned(server: &Server) -> (Status, [IpAddr; 2]) {
    let both = wait_for("two addresses", PATIENCE, || {
        let status = server.status();
        let all = status.serves.addresses.iter().copied();
        let all: Vec<IpAddr> = all.filter(is_assigned).collect();
        let v4 = all.iter().find(|address| address.is_ipv4())?;
        let v6 = all.iter().find(|address| address.is_ipv6())?;
        Some((status.clone(), [*v4, *v6]))
    });
    let sources: Vec<&str> = both
        .0
        .assigned
        .iter()
        .map(|of| of.source.as_str())
        .collect();
    assert_eq!(sources, ["dhcp", "router-advertisements"]);
    both
}

fn client(address: IpAddr) -> Command {
    let mut client = anonymous("//server/pub");
    client.args([
        "-I",
        &address.to_string(),
        "-U",
        &format!("{USER}%{PASSWORD}"),
    ]);
    client
}

#[test]
fn sessions_on_assigned_addresses_continue() {
    const NAME: &str = "sessions_on_assigned_addresses_continue";
    let dnsmasq = Command::new("dnsmasq").arg("--version").output().is_ok();
    let needed = [(dnsmasq, "dnsmasq (scripts/needs dnsmasq installs it)")];
    if !can_run(NAME) || !has(NAME, &needed) {
        return;
    }
    let lab = Lab::new();
    let mut server = Server::prepare(&lab, Setup::default());
    server.rewrite(
        &format!("[\"{SERVER}/24\", \"{SERVER_V6}/64\"]"),
        "[\"dhcp\", \"router-advertisements\"]",
    );
    server.start_again();
    let before = server.status();
    assert_eq!(before.serves.addresses, Vec::<IpAddr>::new());
    let dnsmasq = Dnsmasq::start(&lab);
    let (status, [v4, v6]) = assigned(&server);
    let local = lab.make_dir("local");
    let mut sessions = [v4, v6].map(|address| {
        let dir = lab.make_dir(&format!("local/{}", address.is_ipv4()));
        Session::holding(client(address), server.share(), "held", &dir)
    });
    // A killed worker, a planned restart, and an outage of the whole server.
    server.kill_worker(status.worker_pid);
    let next = server.successor_of(status.worker_pid);
    server.reboot();
    let next = server.successor_of(next.worker_pid);
    server.kill_tree(next.worker_pid);
    server.start_again();
    let (_, addresses) = assigned(&server);
    assert_eq!(addresses, [v4, v6]);
    for session in &mut sessions {
        session.say("get held back");
        session.expect("getting file");
    }
    for address in [v4, v6] {
        run(client(address), &local, "ls").well();
    }
    assert_eq!(server.status().connections.len(), 2);
    assert_eq!(dnsmasq.count("DHCPDISCOVER"), 1, "the lease is on record");
    let text = String::from_utf8_lossy(&server.outlast(&["status"]).stdout).into_owned();
    assert!(text.contains(&format!("address {v4} by dhcp, ")), "{text}");
    server.assert_sound();
}
