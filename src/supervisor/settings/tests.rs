use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::sample::Sample;

#[test]
fn what_was_read_is_independent_of_the_files() {
    let dir = std::env::temp_dir().join(format!("outlast-settings-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (config, users) = (dir.join("outlast.toml"), dir.join("users"));
    std::fs::write(&config, Sample::default().text()).unwrap();
    let missing = Settings::read(&config).err().unwrap();
    assert!(format!("{missing:#}").contains("users_file"), "{missing:#}");
    std::fs::write(&users, "alice:8846f7eaee8fb117ad06bdd830b7586c\n").unwrap();
    std::fs::set_permissions(&users, PermissionsExt::from_mode(0o600)).unwrap();
    let (settings, read) = Settings::read(&config).unwrap();
    std::fs::write(&config, "[serv").unwrap();
    std::fs::write(&users, "").unwrap();
    assert!(Settings::read(&config).is_err());
    for _ in 0..2 {
        let (again, users) =
            inherited(&config, settings.config.as_fd(), settings.users.as_fd()).unwrap();
        assert_eq!(again, read);
        assert!(users.contains("alice"));
    }
    assert!(rustix::io::write(&settings.config, b"x").is_err(), "sealed");
    std::fs::remove_dir_all(&dir).unwrap();
}
