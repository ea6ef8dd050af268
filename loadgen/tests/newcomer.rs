//! The newcomer's page, docs/first-hundred-thousand.md: its own command lines are run, with fewer connections unless
//! NEWCOMER_CONNECTIONS says how many (100000, as the page has it).

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/first-hundred-thousand.md")).unwrap()
}

/// The lines of the page's shell blocks.
fn commands(page: &str) -> Vec<&str> {
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split_once("```").expect("a block ends").0);
    blocks.flat_map(str::lines).collect()
}

/// The page's programs, one beside the other.
struct Path100k {
    throng: PathBuf,
    connections: String,
    address: String,
    report: PathBuf,
    server: Option<Child>,
}

impl Drop for Path100k {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = fs::remove_file(&self.report);
    }
}

impl Path100k {
    fn new() -> Option<Self> {
        let beside = Path::new(env!("CARGO_BIN_EXE_throng-load")).with_file_name("throng");
        let throng = std::env::var_os("THRONG_BIN").map_or(beside, PathBuf::from);
        if !throng.exists() {
            eprintln!("SKIPPED: there is no {}: build it, or set THRONG_BIN", throng.display());
            return None;
        }
        // A port that is free now, as the page has one.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let connections = std::env::var("NEWCOMER_CONNECTIONS").unwrap_or_else(|_| "10000".into());
        let report = std::env::temp_dir().join(format!("throng-newcomer-{}.html", std::process::id()));
        Some(Self { throng, connections, address, report, server: None })
    }

    /// A line of the page as it is run here.
    fn command(&self, line: &str) -> Command {
        let line = line.trim_end_matches(" &").trim_start_matches("sudo ");
        let mut words = line.split_whitespace();
        let mut command = match words.next() {
            Some("throng") => Command::new(&self.throng),
            Some("throng-load") => Command::new(env!("CARGO_BIN_EXE_throng-load")),
            other => panic!("{other:?} is no program of the page's"),
        };
        let (report, hold) = (self.report.to_str().unwrap(), if self.connections == "100000" { "60" } else { "1" });
        let mut previous = "";
        for word in words {
            let ours = word.replace("100000", &self.connections).replace("127.0.0.1:8080", &self.address);
            command.arg(match (previous, &*ours) {
                ("--hold", "60") => hold,
                ("--report", _) => report,
                (_, ours) => ours,
            });
            previous = word;
        }
        command
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A machine of 2 GiB that lacks a setting, so that there is something to apply which is nobody's.
fn small_machine() -> PathBuf {
    let root = std::env::temp_dir().join(format!("throng-newcomer-{}", std::process::id()));
    let file = |path: &str, text: &str| {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), text).unwrap();
    };
    file("proc/meminfo", "MemTotal: 2097152 kB\nMemAvailable: 1900000 kB\n");
    file("proc/sys/net/ipv4/tcp_mem", "12000\t16000\t24000\n");
    root
}

#[test]
fn the_page_leads_a_newcomer_from_a_stock_machine_to_a_clean_report() {
    let Some(mut path) = Path100k::new() else { return };
    let page = page();
    let commands = commands(&page);
    let (mut applied, mut loaded, mut stopped) = (false, false, false);
    for line in commands {
        if line.starts_with("cargo ") || line.starts_with("PATH=") {
            continue; // they have led here
        }
        if line.starts_with("kill ") {
            let mut server = path.server.take().expect("there is a server to stop");
            let kill = Command::new("kill").args(["-s", "TERM", &server.id().to_string()]).status().unwrap();
            assert!(kill.success() && server.wait().unwrap().success(), "{line}");
            stopped = true;
        } else if line.contains("--apply") {
            let root = small_machine();
            let output = path.command(line).args(["--yes", "--root", root.to_str().unwrap()]).output().unwrap();
            let text = said(&output);
            assert!(output.status.success(), "{line}\n{text}");
            assert!(text.contains("To undo it:\n  sysctl -w net.ipv4.tcp_mem='12000 16000 24000'"), "{text}");
            fs::remove_dir_all(root).unwrap();
            applied = true;
        } else if line.starts_with("throng tune") {
            let output = path.command(line).output().unwrap();
            let text = said(&output);
            assert!(matches!(output.status.code(), Some(0 | 1)), "{line}\n{text}");
            assert!(text.contains("this machine: ") && text.contains("both ends of each"), "{text}");
        } else if line.starts_with("throng serve") {
            let mut server = path.command(line).stderr(Stdio::piped()).spawn().unwrap();
            let mut log = BufReader::new(server.stderr.take().unwrap()).lines().map_while(Result::ok);
            path.server = Some(server);
            assert!(log.any(|line| line.contains("listening on")), "it does not start: {line}");
            let preflight = log.next().expect("one more line");
            assert!(preflight.contains("this machine: "), "{preflight}");
            std::thread::spawn(move || log.for_each(drop));
        } else {
            let output = path.command(line).output().unwrap();
            let text = said(&output);
            assert!(output.status.success(), "{line}\n{text}");
            every_line_is_explained(&page, &String::from_utf8_lossy(&output.stdout));
            let html = fs::read_to_string(&path.report).unwrap();
            assert!(html.contains("</html>"), "{}", path.report.display());
            println!("{text}");
            loaded = true;
        }
    }
    assert!(applied && loaded && stopped, "the page has lost a step: {applied} {loaded} {stopped}");
}

/// The page's table has a row for every line of the report, and none for a line that is not there.
#[track_caller]
fn every_line_is_explained(page: &str, summary: &str) {
    let table = page.split_once("| line | what it means |\n").expect("the table of lines").1;
    let rows: Vec<&str> = table.lines().skip(1).take_while(|line| line.starts_with("| `")).collect();
    let explained: Vec<&str> = rows.iter().filter_map(|row| row.split('`').nth(1)).collect();
    // Labels stand at the right of a column of twelve; what goes on below one is indented further.
    let labels: Vec<&str> =
        summary.lines().filter_map(|line| line.get(..12)).map(str::trim).filter(|label| !label.is_empty()).collect();
    assert!(labels.len() > 6, "{summary}");
    for label in &labels {
        assert!(explained.contains(label), "the page does not explain `{label}`: {explained:?}\n{summary}");
    }
    for label in explained {
        // A short hold sees no ping, and a quiet machine no bottleneck.
        assert!(labels.contains(&label) || ["pings", "verdict"].contains(&label), "no line `{label}`:\n{summary}");
    }
}

#[test]
fn the_page_keeps_to_what_the_programs_take() {
    let page = page();
    let commands = commands(&page);
    let count = |start: &str| commands.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!((count("throng serve"), count("throng-load idle"), count("kill")), (1, 1, 1), "{commands:?}");
    assert!(count("throng tune") + count("sudo throng tune") == 2, "{commands:?}");
    assert!(page.contains("-c 1000000 --hold 180"), "the form for a million");
}
