//! Checks that the commands of the README work in a fresh clone (`tests/newcomer`).

mod support;

use std::process::Command;

use support::can_run;

fn follow(options: &[&str]) {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/newcomer"))
        .args(options)
        .output()
        .expect("tests/newcomer");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

#[test]
fn the_commands_of_the_readme_work() {
    if can_run("the_commands_of_the_readme_work") {
        follow(&["--built", env!("CARGO_BIN_EXE_outlast")]);
    }
}

#[test]
fn the_commands_of_the_readme_work_without_its_configuration() {
    if can_run("the_commands_of_the_readme_work_without_its_configuration") {
        follow(&["--built", env!("CARGO_BIN_EXE_outlast"), "--without-root"]);
    }
}

#[test]
#[ignore = "builds the release binary: scripts/test --full"]
fn the_commands_of_the_readme_work_with_the_build() {
    if can_run("the_commands_of_the_readme_work_with_the_build") {
        follow(&[]);
    }
}
