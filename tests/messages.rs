//! Tests the command line's messages: help, default configuration, and the remedies in errors.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::can_run;
use support::lab::{self, Lab};
use support::server::{Server, Setup, error};

fn outlast(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
    command.args(words).env_remove("OUTLAST_CONFIG");
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("outlast")
}

/// Checks that it fails with one line that contains all of these.
fn assert_says(output: &Output, names: &[&str]) {
    let text = error(output);
    assert!(!output.status.success(), "{text}");
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('[')).collect();
    assert_eq!(lines.len(), 1, "{text}");
    for name in names {
        assert!(lines[0].contains(name), "{name:?} is not in: {text}");
    }
}

#[test]
fn the_configuration_is_named_by_option_or_variable_or_has_its_place() {
    let missing = |command: &mut Command, path: &str| {
        assert_says(&run(command), &[path, "--config", "OUTLAST_CONFIG"]);
    };
    let variable = "/nowhere/by-variable.toml";
    for words in [&["status"][..], &["user", "list"], &["reboot"], &["serve"]] {
        if !Path::new("/etc/outlast/outlast.toml").exists() {
            missing(&mut outlast(words), "/etc/outlast/outlast.toml");
            missing(
                outlast(words).env("OUTLAST_CONFIG", ""),
                "/etc/outlast/outlast.toml",
            );
        }
        missing(outlast(words).env("OUTLAST_CONFIG", variable), variable);
        let by_option = [words, &["--config", "/nowhere/by-option.toml"]].concat();
        missing(
            outlast(&by_option).env("OUTLAST_CONFIG", variable),
            "by-option.toml",
        );
    }
}

#[test]
fn the_help_is_in_plain_words() {
    let help = |words: &[&str]| {
        let output = run(outlast(words).arg("--help"));
        assert!(output.status.success(), "{words:?}: {}", error(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let mut all = help(&[]);
    assert!(all.contains("Manage users"), "{all}");
    for words in [
        &["serve"][..],
        &["lab"],
        &["status"],
        &["reboot"],
        &["stop"],
        &["check"],
        &["crash"],
        &["disconnect"],
        &["user"],
        &["user", "add"],
        &["user", "passwd"],
        &["user", "remove"],
        &["user", "list"],
        &["user", "import"],
        &["nvram"],
        &["nvram", "show"],
        &["nvram", "reset"],
    ] {
        all += &help(words);
    }
    for phrase in ["Print JSON", "Seconds to stay down", "$OUTLAST_CONFIG"] {
        assert!(all.contains(phrase), "{phrase}: {all}");
    }
    let folded = all.to_lowercase();
    for phrase in [
        "electively",
        "take up",
        "goes on",
        "told",
        "how things are",
        "keep the users",
    ] {
        assert!(!folded.contains(phrase), "{phrase}: {all}");
    }
}

#[test]
fn the_file_of_another_program_is_no_nvram() {
    if !can_run("the_file_of_another_program_is_no_nvram") {
        return;
    }
    let lab = Lab::new();
    let server = Server::prepare(&lab, Setup::default());
    let nvram = lab.path("nvram");
    for content in ["127.0.0.1 localhost\n".to_owned(), "x".repeat(100_000)] {
        std::fs::write(&nvram, &content).expect("a file");
        let name = nvram.to_str().expect("UTF-8");
        assert_says(
            &server.outlast(&["serve"]),
            &["nvram", "not an Outlast checkpoint log"],
        );
        assert_says(
            &run(&mut outlast(&["nvram", "show", name])),
            &["nvram", "not an Outlast checkpoint log"],
        );
        assert_says(
            &run(&mut outlast(&["nvram", "reset", "--yes", name])),
            &["nvram", "not an Outlast checkpoint file"],
        );
        let check = server.outlast(&["check"]);
        let text = String::from_utf8_lossy(&check.stdout);
        assert!(text.contains("not an Outlast checkpoint log"), "{text}");
        let after = std::fs::read_to_string(&nvram).expect("a file");
        assert!(after == content, "it was changed");
    }
}

#[test]
fn a_driver_that_may_not_be_opened_is_named() {
    if !can_run("a_driver_that_may_not_be_opened_is_named") {
        return;
    }
    let lab = Lab::new();
    let server = Server::prepare(&lab, Setup::default());
    // As in a container without the device; root may open everything else.
    lab::run("mount --bind /dev/net /dev/net");
    lab::run("mount -o remount,bind,nodev /dev/net");
    let names = ["/dev/net/tun", "--device", "tap0"];
    assert_says(&server.outlast(&["serve"]), &names);
    server.rewrite("tap = \"tap0\"", "tap = \"tap0\"\noffload = false");
    assert_says(&server.outlast(&["serve"]), &names);
}

#[test]
fn a_misspelt_configuration_says_what_to_write() {
    if !can_run("a_misspelt_configuration_says_what_to_write") {
        return;
    }
    let lab = Lab::new();
    let server = Server::prepare(&lab, Setup::default());
    for (from, to, names) in [
        ("[[share]]", "[share]", &["[[share]]"][..]),
        (
            "[nvram]",
            "[limits]\nmax_conections = 5\n[nvram]",
            &["limits.max_conections", "write \"max_connections\""],
        ),
        (
            "[nvram]",
            "[limits]\nmax_opens = \"many\"\n[nvram]",
            &["limits.max_opens", "whole number", "without quotes"],
        ),
    ] {
        let good = server.rewrite(from, to);
        assert_says(
            &server.outlast(&["serve"]),
            &[&["outlast.toml:"], names].concat(),
        );
        std::fs::write(server.config(), good).expect("the configuration");
    }
}
