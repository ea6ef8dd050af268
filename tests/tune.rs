//! `throng tune` as people and scripts use it: verdicts and exit statuses on machines made of files, and changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A machine made of files, which is gone with it.
struct Fake(PathBuf);

impl Fake {
    /// 16 GiB, a kernel's defaults.
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("throng-tune-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let fake = Self(root);
        fake.file("proc/meminfo", "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 15728640 kB\n");
        fake.file("proc/stat", "cpu  1\ncpu0 1\ncpu1 1\n");
        fake.file("proc/loadavg", "0.1 0.1 0.1 1/200 999\n");
        fake.file("proc/self/limits", "Max open files            1024                 20000                files\n");
        for (name, value) in [
            ("kernel/osrelease", "6.12.1"),
            ("kernel/threads-max", "127000"),
            ("kernel/pid_max", "4194304"),
            ("fs/file-nr", "1500\t0\t1600000"),
            ("fs/file-max", "1600000"),
            ("fs/nr_open", "1048576"),
            ("fs/epoll/max_user_watches", "3670016"),
            ("net/core/somaxconn", "4096"),
            ("net/ipv4/tcp_mem", "190000\t253000\t380000"),
            ("net/ipv4/ip_local_port_range", "32768\t60999"),
            ("vm/max_map_count", "65530"),
        ] {
            fake.sysctl(name, value);
        }
        fake
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn sysctl(&self, path: &str, value: &str) {
        self.file(&format!("proc/sys/{path}"), &format!("{value}\n"));
    }

    fn now(&self, path: &str) -> String {
        fs::read_to_string(self.0.join("proc/sys").join(path)).unwrap().trim().to_owned()
    }

    fn tune(&self, arguments: &[&str]) -> Output {
        tune(&[&["--root", self.0.to_str().unwrap()], arguments].concat())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tune(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_throng"));
    command.arg("tune").args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Status, standard output, standard error.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The line of a setting.
#[track_caller]
fn row<'a>(table: &'a str, name: &str) -> &'a str {
    table.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap_or_else(|| panic!("{name}: {table}"))
}

#[test]
fn what_suffices_is_called_ok_and_ends_with_0() {
    let (status, table, _) = said(&Fake::new("ok").tune(&["-c", "100000"]));
    assert_eq!(status, Some(0), "{table}");
    for name in ["fs.file-max", "RLIMIT_NOFILE", "net.ipv4.tcp_mem", "net.core.somaxconn"] {
        assert!(row(&table, name).ends_with(" ok"), "{table}");
    }
    assert!(table.contains("Nothing falls short."), "{table}");
    assert!(table.contains("this machine: 1.59 M connections by fs.file-max, "), "{table}");
    assert!(table.ends_with("start it with: throng serve --max-connections 100000 (6 workers here)\n"), "{table}");
}

#[test]
fn what_falls_short_is_named_with_now_needed_and_why_and_ends_with_1() {
    let fake = Fake::new("short");
    fake.sysctl("fs/file-max", "400000");
    fake.sysctl("net/core/somaxconn", "128");
    let (status, table, _) = said(&fake.tune(&["--connections", "1M"]));
    assert_eq!(status, Some(1), "{table}");
    let files: Vec<_> = row(&table, "fs.file-max").split_whitespace().collect();
    assert_eq!(files, ["fs.file-max", "400,000", "1,002,500", "TOO", "LITTLE"]);
    assert!(row(&table, "net.core.somaxconn").ends_with("TOO LITTLE"), "{table}");
    assert!(row(&table, "net.ipv4.tcp_mem").contains("750,000 1,000,000 1,500,000"), "{table}");
    assert!(table.contains("Too many open files in system"), "{table}");
    assert!(table.contains("\nN: connections, 1,000,000; ends here: "), "{table}");
    assert!(table.contains("3 fall short: fs.file-max, net.core.somaxconn, net.ipv4.tcp_mem."), "{table}");
}

#[test]
fn what_cannot_be_read_is_said_and_is_not_called_short() {
    let fake = Fake::new("odd");
    fake.sysctl("fs/file-max", "many");
    fs::remove_file(fake.0.join("proc/sys/fs/epoll/max_user_watches")).unwrap();
    let (status, table, _) = said(&fake.tune(&["-c", "1000"]));
    assert_eq!(status, Some(0), "{table}");
    assert!(row(&table, "fs.file-max").contains("unknown"), "{table}");
    assert!(table.contains("Not to be told here: fs.file-max, fs.epoll.max_user_watches"), "{table}");
    // A machine that shows nothing at all.
    let empty = Fake(std::env::temp_dir().join(format!("throng-tune-{}-nothing", std::process::id())));
    fs::create_dir_all(&empty.0).unwrap();
    let (status, table, _) = said(&empty.tune(&["-c", "1000"]));
    assert!(status.is_some_and(|status| status < 2) && table.contains("Not to be told here"), "{table}");
}

#[test]
fn memory_is_what_there_is_or_what_is_said() {
    let fake = Fake::new("memory");
    let (status, table, _) = said(&fake.tune(&["-c", "10M"]));
    assert_eq!(status, Some(1));
    assert!(row(&table, "memory").contains("15.0 GiB") && row(&table, "memory").contains("40.0 GiB"), "{table}");
    assert!(table.contains("37 % of them would fit"), "{table}");
    let (_, table, _) = said(&fake.tune(&["-c", "10M", "--memory", "64G"]));
    assert!(row(&table, "memory").ends_with(" ok"), "{table}");
}

#[test]
fn a_control_group_limits_as_the_machine_does() {
    let fake = Fake::new("group");
    fake.file("proc/self/cgroup", "0::/a/b\n");
    fake.file("sys/fs/cgroup/a/memory.max", "536870912\n");
    fake.file("sys/fs/cgroup/a/b/pids.max", "max\n");
    let (status, table, _) = said(&fake.tune(&["-c", "200k"]));
    assert_eq!(status, Some(1));
    assert!(row(&table, "memory.max").ends_with("TOO LITTLE"), "{table}");
    assert!(table.contains("MemoryMax=860000000"), "{table}");
    assert!(table.contains("this machine: 124 k connections by memory.max"), "{table}");
}

#[test]
fn a_load_generator_is_told_of_ports_and_addresses() {
    let fake = Fake::new("load");
    let (status, table, _) = said(&fake.tune(&["-c", "100000", "--role", "load"]));
    assert_eq!(status, Some(1));
    assert!(row(&table, "net.ipv4.ip_local_port_range").contains("64,512 wide"), "{table}");
    assert!(table.contains("give this machine 2 addresses"), "{table}");
    let (status, table, _) = said(&fake.tune(&["-c", "100000", "--role", "load", "--sources", "4"]));
    assert_eq!(status, Some(0), "{table}");
    assert!(!said(&fake.tune(&["-c", "100000"])).1.contains("ip_local_port_range"), "a server needs none");
}

#[test]
fn nonsense_is_refused_with_what_makes_sense() {
    for (arguments, expected) in [
        (&["-c", "0"][..], "at a time"),
        (&["-c", "99999999999"], "17,179,869,184"),
        (&["-c", "many"], "1000000, 1M or 100k"),
        (&["-c", "-5"], "unexpected argument"),
        (&[], "--connections <N>"),
        (&["-c", "10", "--memory", "0"], "16G"),
        (&["-c", "10", "--role", "client"], "possible values: server, load, both"),
        (&["-c", "10", "--sources", "2"], "--role load"),
        (&["-c", "10", "--yes"], "--apply"),
        (&["-c", "100k", "--explain", "tcp_mem"], "--connections <N>"),
        (&["--explain", "tcp_men"], "did you mean net.ipv4.tcp_mem?"),
    ] {
        let (status, _, errors) = said(&tune(arguments));
        assert_eq!(status, Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_setting_is_explained_by_the_guide() {
    let (status, text, _) = said(&tune(&["--explain", "tcp_mem"]));
    assert_eq!(status, Some(0));
    assert!(text.contains("**in pages**") && text.contains("TCPRcvQDrop"), "{text}");
}

#[test]
fn programs_are_told_the_same() {
    let fake = Fake::new("json");
    let (status, text, _) = said(&fake.tune(&["-c", "1000000", "--json"]));
    assert_eq!(status, Some(1));
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["connections"], 1_000_000);
    assert_eq!(value["short"], serde_json::json!(["net.ipv4.tcp_mem"]));
    assert_eq!(value["holds"][0], serde_json::json!({"by": "fs.file-max", "connections": 1_597_500}));
    let settings = value["settings"].as_array().unwrap();
    let tcp_mem = settings.iter().find(|setting| setting["name"] == "net.ipv4.tcp_mem").unwrap();
    assert_eq!(tcp_mem["now"], serde_json::json!([190_000, 253_000, 380_000]));
    assert_eq!(tcp_mem["needed"], serde_json::json!({"each_at_least": [750_000, 1_000_000, 1_500_000]}));
    assert_eq!((&tcp_mem["verdict"], &tcp_mem["value"]), (&"short".into(), &"750000 1000000 1500000".into()));
    for setting in settings.iter().filter(|setting| setting["verdict"] != "short" && setting["verdict"] != "advice") {
        assert!(setting["value"].is_null(), "nothing is to be set: {setting}");
    }
}

#[test]
fn applying_changes_what_falls_short_and_says_how_to_undo_it() {
    let fake = Fake::new("apply");
    fake.sysctl("fs/file-max", "400000");
    let (status, text, errors) = said(&fake.tune(&["-c", "1000000", "--apply"]));
    assert_eq!(status, Some(2), "nobody is there to be asked: {text}");
    assert!(errors.contains("--apply --yes"), "{errors}");
    assert_eq!(fake.now("fs/file-max"), "400000");

    let (status, text, _) = said(&fake.tune(&["-c", "1000000", "--apply", "--yes"]));
    assert_eq!(status, Some(0), "{text}");
    assert_eq!(fake.now("fs/file-max"), "1002500");
    assert_eq!(fake.now("net/ipv4/tcp_mem"), "750000 1000000 1500000");
    assert_eq!(fake.now("net/core/somaxconn"), "4096", "what suffices stays");
    assert!(text.contains("To undo it:\n  sysctl -w fs.file-max=400000\n"), "{text}");
    assert!(text.contains("  sysctl -w net.ipv4.tcp_mem='190000 253000 380000'\n"), "{text}");
    assert!(text.ends_with("Now: Nothing falls short.\n"), "{text}");
    // And again: there is nothing left to do.
    let (status, text, _) = said(&fake.tune(&["-c", "1000000", "--apply", "--yes"]));
    assert!(status == Some(0) && text.contains("There is nothing to change"), "{text}");
}

#[test]
fn what_cannot_be_changed_is_said_with_what_can_be_done_instead() {
    let fake = Fake::new("stubborn");
    fake.file("proc/self/limits", "Max open files            64                 64                files\n");
    let (status, text, _) = said(&fake.tune(&["-c", "1000000", "--apply", "--yes"]));
    assert_eq!(status, Some(1));
    assert_eq!(fake.now("net/ipv4/tcp_mem"), "750000 1000000 1500000");
    assert!(text.contains("not changed: RLIMIT_NOFILE: ") && text.contains("LimitNOFILE=2254"), "{text}");
    assert!(text.contains("Now: RLIMIT_NOFILE falls short."), "{text}");
}

#[test]
fn a_file_for_sysctl_d_has_what_falls_short_and_nothing_else() {
    let fake = Fake::new("write");
    fake.sysctl("fs/file-max", "400000");
    let file = fake.0.join("90-throng.conf");
    let (status, _, errors) = said(&fake.tune(&["-c", "1000000", "--write", file.to_str().unwrap()]));
    assert_eq!(status, Some(1), "writing a file changes nothing yet");
    assert!(errors.contains("sysctl --system"), "{errors}");
    // Read as sysctl(8) does, into the machine: then nothing falls short.
    let text = fs::read_to_string(&file).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut names = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(" = ").unwrap();
        fake.sysctl(&name.replace('.', "/"), value);
        names.push(name);
    }
    assert_eq!(names, ["fs.file-max", "net.ipv4.tcp_mem"]);
    assert_eq!(said(&fake.tune(&["-c", "1000000"])).0, Some(0));
    // Standard output, and a place that is not there.
    assert_eq!(
        said(&fake.tune(&["-c", "10", "--write", "-"])).1.lines().filter(|line| !line.starts_with('#')).count(),
        0
    );
    let (status, _, errors) = said(&fake.tune(&["-c", "10", "--write", "/nowhere/at/all"]));
    assert!(status == Some(2) && errors.contains("/nowhere/at/all"), "{errors}");
}

/// In a network namespace of its own, where settings can be changed that are nobody else's.
#[test]
fn a_real_kernel_takes_what_is_applied() {
    let script = format!(
        "echo 16 > /proc/sys/net/core/somaxconn && {} tune -c 1000 --apply --yes; echo status $?; cat /proc/sys/net/core/somaxconn",
        env!("CARGO_BIN_EXE_throng")
    );
    let output = match Command::new("unshare").args(["-n", "sh", "-c", &script]).output() {
        Ok(output) if output.status.success() || !output.stdout.is_empty() => output,
        _ => return eprintln!("SKIPPED: unshare -n is not allowed here"),
    };
    let (_, text, errors) = said(&output);
    if errors.contains("Read-only") || errors.contains("Permission denied") {
        return eprintln!("SKIPPED: settings are not to be changed here: {errors}");
    }
    assert!(text.contains("sysctl -w net.core.somaxconn=4096"), "{text}{errors}");
    assert!(text.contains("To undo it:\n  sysctl -w net.core.somaxconn=16\n"), "{text}");
    assert!(text.ends_with("4096\n"), "{text}");
}

/// Where a terminal is, it is asked.
#[test]
fn a_terminal_is_asked_first() {
    if !Path::new("/usr/bin/script").exists() {
        return eprintln!("SKIPPED: no script(1) to make a terminal");
    }
    for (answer, expected) in [("n\n", "190000\t253000\t380000"), ("y\n", "750000 1000000 1500000")] {
        let fake = Fake::new(if answer == "n\n" { "asked-no" } else { "asked-yes" });
        let line = format!("{} tune --root {} -c 1000000 --apply", env!("CARGO_BIN_EXE_throng"), fake.0.display());
        let mut child = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), answer.as_bytes()).unwrap();
        let (_, text, _) = said(&child.wait_with_output().unwrap());
        assert!(text.contains("[y/N]"), "{text}");
        assert_eq!(fake.now("net/ipv4/tcp_mem"), expected, "{text}");
    }
}

/// The script behind what the table calls tried, as far as it touches nobody else and takes a moment.
#[test]
fn limits_that_can_be_run_into_are_run_into() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/proof");
    let mut proof = Command::new("python3");
    proof.arg(script).args(["nofile", "somaxconn", "ports", "migrate-req"]);
    let Ok(output) = proof.env("THRONG_BIN", env!("CARGO_BIN_EXE_throng")).output() else {
        return eprintln!("SKIPPED: no python3");
    };
    let (status, text, errors) = said(&output);
    assert_eq!(status, Some(0), "{text}{errors}");
    println!("{text}");
    let verdicts = text.lines().last().unwrap_or_default();
    assert!(verdicts.contains("0 FAILED") || verdicts.starts_with("SKIPPED"), "{text}{errors}");
}
