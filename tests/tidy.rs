//! The rules of this code base that a compiler does not check, checked by reading `src`.
//!
//! Sources are read as text with comments and literals blanked out (`code_of`), not parsed: the rules are about
//! what is written where. Each rule is a function from one file to its faults; at the end of this file each is
//! shown to fail on a small made-up source.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Who may use whom: a module may use its own line and the lines above it.
const LAYERS: [&[&str]; 10] = [
    &["sys", "mem", "json"],
    &["http", "ws", "sse"],
    &["client"], // The other side: nothing of the server uses it.
    &["conn"],
    &["topic", "adapter"],
    &["worker"],
    &["service", "server", "launch"], // `launch` is how a server starts.
    &["control", "tuning"],           // `tuning`: what a machine must allow.
    &["bin"],
    &["fuzzing", "benching"], // Properties and costs of all that is above, compiled for tests, fuzzers and benchmarks alone.
];

/// Visible everywhere; they use the lowest layer at most.
const EVERYWHERE: [&str; 6] = ["limits", "error", "time", "config", "metrics", "planted"];

/// Edges against the arrow: the worker is generic over the `Service` trait, which belongs to the public face.
const EXCEPTIONS: [(&str, &str); 1] = [("worker", "service")];

/// Edges with the arrow that are not wanted all the same: a protocol's adapter is sans-IO, and beside connections rather
/// than above them.
const FORBIDDEN: [(&str, &str); 2] = [("adapter", "sys"), ("adapter", "conn")];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// How far above its block a `SAFETY:` comment may start, in lines.
const SAFETY_LINES_ABOVE: usize = 6;

const RULES: [fn(&Source) -> Vec<Fault>; 10] = [
    layers,
    unsafe_has_its_place,
    unsafe_blocks_say_why,
    libc_has_its_place,
    mio_has_its_place,
    files_are_short,
    functions_are_short,
    nothing_is_left_over,
    no_trailing_white_space,
    no_machine_paths,
];

#[test]
fn the_sources_keep_to_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    collect(&root.join("src"), root, &mut sources);
    assert!(!sources.is_empty(), "no sources under {}", root.display());
    let faults: Vec<String> =
        sources.iter().flat_map(|source| RULES.iter().flat_map(|rule| rule(source))).map(|f| f.to_string()).collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// What is said to be proved is proved by something that is there.
#[test]
fn the_threat_model_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = Vec::new();
    for dir in ["src", "tests"] {
        collect(&root.join(dir), root, &mut tests);
    }
    let mut tests: String = tests.iter().map(|source| &*source.text).collect();
    tests.push_str(&fs::read_to_string(root.join("tests/clients/test_hostile.py")).unwrap());
    let model = fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    // Tests' names are sentences; what the code has beside them in backticks is shorter.
    let names: Vec<&str> = (model.split('`').skip(1).step_by(2))
        .map(|name| name.rsplit("::").next().unwrap_or(name))
        .filter(|name| name.matches('_').count() > 2 && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()))
        .filter(|name| !name.starts_with("throng_"))
        .collect();
    assert!(names.len() > 40, "{names:?}");
    let there = |name: &str| tests.contains(&format!("fn {name}(")) || tests.contains(&format!("def {name}("));
    let missing: Vec<_> = names.into_iter().filter(|name| !there(name)).collect();
    assert!(missing.is_empty(), "no test of that name: {missing:?}");
}

/// Figures beside other servers are written by the script that measured them, and by nobody else.
#[test]
fn the_figures_beside_other_servers_are_those_of_the_newest_record() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_record = |name: &str| name.ends_with("-peers.json");
    let mut records = fs::read_dir(root.join("benches/record")).unwrap().map(|entry| entry.unwrap().file_name());
    if !records.any(|name| name.to_str().is_some_and(is_record)) {
        return;
    }
    let check = Command::new("python3").arg("-B").arg(root.join("benches/peers/run")).arg("--check").output();
    let check = check.expect("python3 is there, as for tests/run");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

fn collect(dir: &Path, root: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, root, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            sources.push(Source::new(&name, &fs::read_to_string(&path).unwrap()));
        }
    }
}

/// A breach of a rule, shown as `file:line: what; what to do`.
#[derive(Debug)]
struct Fault {
    file: String,
    line: usize,
    message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// One file.
struct Source {
    /// Its path below the root of the repository.
    file: String,
    text: String,
    /// `text` without comments and the contents of literals, byte for byte and line for line in the same place.
    code: String,
    /// The bytes of `code` that belong to `#[cfg(test)]` items.
    tests: Vec<std::ops::Range<usize>>,
}

impl Source {
    fn new(file: &str, text: &str) -> Self {
        let code = code_of(text);
        let tests = test_items(&code);
        Self { file: file.to_owned(), text: text.to_owned(), code, tests }
    }

    /// The file's path below `src`, as module names: `ws/mask.rs` is `["ws", "mask"]`.
    fn modules(&self) -> Vec<&str> {
        let path = self.file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        path.split('/').collect()
    }

    fn is_under(&self, module: &str) -> bool {
        self.modules()[0] == module
    }

    /// Whether the byte at `at` is test code: in a `#[cfg(test)]` item, or in a file of tests.
    fn is_test(&self, at: usize) -> bool {
        self.modules().contains(&"tests") || self.tests.iter().any(|range| range.contains(&at))
    }

    fn fault(&self, at: usize, message: impl Into<String>) -> Fault {
        let line = self.code[..at].matches('\n').count() + 1;
        Fault { file: self.file.clone(), line, message: message.into() }
    }

    /// The byte at which each line of code starts: lines that hold more than comments and white space.
    fn lines_of_code(&self) -> impl Iterator<Item = usize> {
        let mut at = 0;
        self.code.split_inclusive('\n').filter_map(move |line| {
            let start = at;
            at += line.len();
            (!line.trim().is_empty()).then_some(start)
        })
    }
}

// The rules.

fn layers(source: &Source) -> Vec<Fault> {
    let modules = source.modules();
    let (from, depth) = (modules[0], modules.len());
    if from == "lib" || from == "bin" {
        return Vec::new(); // They are above everything.
    }
    let Some(rank) = rank_of(from) else {
        return vec![source.fault(0, format!("`{from}` is in no layer; give it a place in LAYERS of tests/tidy.rs"))];
    };
    let judge = |(at, to): (usize, &str)| match rank_of(to) {
        _ if from == to || EXCEPTIONS.contains(&(from, to)) => None,
        _ if FORBIDDEN.contains(&(from, to)) => {
            Some(source.fault(at, format!("`{from}` uses `{to}`, which is not for it; hand in what it gives")))
        }
        Some(used) if used <= rank || EVERYWHERE.contains(&to) => None,
        Some(_) => Some(
            source
                .fault(at, format!("`{from}` uses `{to}`, which is above it; move the code, or hand it in from above")),
        ),
        None => Some(source.fault(
            at,
            format!("`crate::{to}` names no layer; write the path by its module, so that layers can be checked"),
        )),
    };
    crate_paths(&source.code, depth).into_iter().filter_map(judge).collect()
}

fn rank_of(module: &str) -> Option<usize> {
    if EVERYWHERE.contains(&module) {
        return Some(0);
    }
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The first segment of every path from the crate's root, in a file that is `depth` modules deep: of
/// `crate::a::b`, of each branch of `crate::{a, b::c}`, and of `super::a` where that leads to the root.
fn crate_paths(code: &str, depth: usize) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, _) in words(code, "crate") {
        let rest = &code[at + "crate".len()..];
        let Some(path) = rest.trim_start().strip_prefix("::") else {
            continue;
        };
        let at = code.len() - path.trim_start().len();
        if code[at..].starts_with('{') {
            found.extend(branches(code, at));
        } else {
            found.push((at, word_at(code, at)));
        }
    }
    let mut supers = words(code, "super").map(|(at, _)| at).peekable();
    while let Some(start) = supers.next() {
        let (mut at, mut steps) = (start + "super::".len(), 1);
        while supers.next_if_eq(&at).is_some() {
            (at, steps) = (at + "super::".len(), steps + 1);
        }
        // An inline module is one deeper than its file: a name that is no layer is then the file's own.
        let name = word_at(code, at.min(code.len()));
        if steps >= depth && rank_of(name).is_some() {
            found.push((start, name));
        }
    }
    found
}

/// The first word of each branch of the braces that open at `open`.
fn branches(code: &str, open: usize) -> Vec<(usize, &str)> {
    let (mut depth, mut starts, mut found) = (0, true, Vec::new());
    for (i, byte) in code[open..].bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => break,
            b'}' => depth -= 1,
            b',' if depth == 1 => starts = true,
            byte if depth == 1 && starts && is_word(byte) => {
                starts = false;
                found.push((open + i, word_at(code, open + i)));
            }
            _ => {}
        }
    }
    found
}

fn may_be_unsafe(source: &Source) -> bool {
    source.is_under("sys") || source.file == "src/ws/mask.rs"
}

fn unsafe_has_its_place(source: &Source) -> Vec<Fault> {
    let advice = "`unsafe` outside src/sys and src/ws/mask.rs; put the call behind a safe function in `sys`";
    if may_be_unsafe(source) { Vec::new() } else { every(source, "unsafe", advice) }
}

fn libc_has_its_place(source: &Source) -> Vec<Fault> {
    let advice = "`libc` outside src/sys and src/ws/mask.rs; give `sys` a function for it";
    if may_be_unsafe(source) { Vec::new() } else { every(source, "libc", advice) }
}

fn mio_has_its_place(source: &Source) -> Vec<Fault> {
    let advice = "`mio` outside src/worker; the worker is the only place that waits for sockets";
    if source.is_under("worker") { Vec::new() } else { every(source, "mio", advice) }
}

fn every(source: &Source, word: &str, advice: &str) -> Vec<Fault> {
    words(&source.code, word).map(|(at, _)| source.fault(at, advice)).collect()
}

fn unsafe_blocks_say_why(source: &Source) -> Vec<Fault> {
    let lines: Vec<&str> = source.text.lines().collect();
    let blocks = words(&source.code, "unsafe").filter(|(_, rest)| rest.trim_start().starts_with('{'));
    blocks
        .map(|(at, _)| source.fault(at, "an `unsafe` block without `// SAFETY:` above it; say why it is sound"))
        .filter(|fault| {
            let above = &lines[fault.line.saturating_sub(1 + SAFETY_LINES_ABOVE)..fault.line];
            !above.iter().any(|line| line.contains("SAFETY:"))
        })
        .collect()
}

fn files_are_short(source: &Source) -> Vec<Fault> {
    let lines = source.lines_of_code().filter(|&at| !source.is_test(at)).count();
    let message = format!("{lines} lines of code, over {FILE_LINES_MAX}; part it where its ideas part");
    if lines > FILE_LINES_MAX { vec![source.fault(0, message)] } else { Vec::new() }
}

fn functions_are_short(source: &Source) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (at, rest) in words(&source.code, "fn") {
        let name = word_at(source.code.as_str(), source.code.len() - rest.trim_start().len());
        let Some(body) = body_behind(&source.code, at).filter(|_| !name.is_empty()) else {
            continue;
        };
        let start = source.code[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let lines = source.lines_of_code().filter(|line| (start..body.end).contains(line)).count();
        if lines > FUNCTION_LINES_MAX {
            let message = format!("`{name}` has {lines} lines, over {FUNCTION_LINES_MAX}; give its parts names");
            faults.push(source.fault(at, message));
        }
    }
    faults
}

fn nothing_is_left_over(source: &Source) -> Vec<Fault> {
    let mut faults = Vec::new();
    for name in ["todo", "unimplemented", "dbg", "println"] {
        // The binary speaks to people, and tests may.
        let free = |at| name == "println" && (source.is_under("bin") || source.is_test(at));
        let uses = words(&source.code, name).filter(|(at, rest)| rest.starts_with('!') && !free(*at));
        faults.extend(uses.map(|(at, _)| source.fault(at, format!("`{name}!` in the library; finish it, or log it"))));
    }
    faults
}

fn no_trailing_white_space(source: &Source) -> Vec<Fault> {
    numbered(source, |line| line.ends_with([' ', '\t', '\r']), "white space at the end of the line; remove it")
}

fn no_machine_paths(source: &Source) -> Vec<Fault> {
    let around = Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::to_str);
    no_paths_below(source, around.filter(|&path| path != "/"))
}

/// Paths below `around`, the directory that holds this checkout, and where people's and scratch files lie.
fn no_paths_below(source: &Source, around: Option<&str>) -> Vec<Fault> {
    let around = around.map(|path| format!("{path}/"));
    let bad: Vec<&str> = ["/home/", "/Users/", "/root/", "/tmp/"].into_iter().chain(around.as_deref()).collect();
    let has_one = |line: &str| bad.iter().any(|path| line.contains(path));
    numbered(source, has_one, "a path of somebody's machine; make it relative, or an argument")
}

fn numbered(source: &Source, bad: impl Fn(&str) -> bool, message: &str) -> Vec<Fault> {
    let lines = source.text.split('\n').enumerate().filter(|(_, line)| bad(line));
    lines.map(|(n, _)| Fault { file: source.file.clone(), line: n + 1, message: message.to_owned() }).collect()
}

// Reading.

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

fn word_at(code: &str, at: usize) -> &str {
    let rest = &code[at..];
    &rest[..rest.bytes().position(|byte| !is_word(byte)).unwrap_or(rest.len())]
}

/// Every place where `word` stands as a word of its own, with what follows it.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    code.match_indices(word).filter_map(move |(at, _)| {
        let rest = &code[at + word.len()..];
        let alone = !code[..at].bytes().next_back().is_some_and(is_word) && !rest.bytes().next().is_some_and(is_word);
        alone.then_some((at, rest))
    })
}

/// The braces behind the head of an item at `at`; none when a semicolon ends it first.
fn body_behind(code: &str, at: usize) -> Option<std::ops::Range<usize>> {
    let (mut nested, mut braces, mut open) = (0, 0, None);
    for (i, byte) in code[at..].bytes().enumerate() {
        match byte {
            b'(' | b'[' => nested += 1,
            b')' | b']' => nested -= 1,
            b';' if nested == 0 && open.is_none() => return None,
            b'{' if nested == 0 || open.is_some() => {
                open.get_or_insert(at + i);
                braces += 1;
            }
            b'}' if open.is_some() => {
                braces -= 1;
                if braces == 0 {
                    return Some(open?..at + i + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// The items behind each `#[cfg(test)]`, attribute included.
fn test_items(code: &str) -> Vec<std::ops::Range<usize>> {
    let attributes = code.match_indices("#[cfg(test)]");
    attributes.filter_map(|(at, attribute)| Some(at..body_behind(code, at + attribute.len())?.end)).collect()
}

/// `text` with comments blanked out and literals filled with quotes, so that every byte and every line stays in
/// its place.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut code, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let rest = &text[at..];
        let (len, fill) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), b' ')
        } else if rest.starts_with("/*") {
            (block_comment_len(rest), b' ')
        } else if let Some(len) = literal_len(rest) {
            (len, b'"')
        } else {
            let word = word_at(text, at).len();
            let len = if word > 0 { word } else { rest.chars().next().map_or(1, char::len_utf8) };
            code.extend_from_slice(&bytes[at..at + len]);
            at += len;
            continue;
        };
        code.extend(bytes[at..at + len].iter().map(|&byte| if byte == b'\n' { byte } else { fill }));
        at += len;
    }
    String::from_utf8(code).expect("whole characters are kept or filled with ASCII")
}

fn block_comment_len(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let step = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => 1,
            [b'*', b'/', ..] => -1,
            _ => 0,
        };
        depth += step;
        at += if step == 0 { 1 } else { 2 };
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of the string or character literal that starts `rest`; none for a lifetime and for all else.
fn literal_len(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        let quoted = rest
            .strip_prefix(prefix)
            .map(|rest| if prefix.ends_with('r') { rest.trim_start_matches('#') } else { rest });
        quoted.is_some_and(|rest| rest.starts_with('"') || (!prefix.ends_with(['r', 'c']) && rest.starts_with('\'')))
    })?;
    let (start, body) = (prefix.len(), &rest[prefix.len()..]);
    if prefix.ends_with('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let inside = start + hashes + 1;
        return Some(rest[inside..].find(&end).map_or(rest.len(), |at| inside + at + end.len()));
    }
    let quote = body.chars().next()?;
    let mut escaped = false;
    for (i, char) in body.char_indices().skip(1) {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if char == quote => return Some(start + i + 1),
            // One character and no quote behind it: a lifetime.
            _ if quote == '\'' && !body.starts_with("'\\") && !body[i + char.len_utf8()..].starts_with('\'') => {
                return None;
            }
            _ => {}
        }
    }
    Some(rest.len())
}

// Each rule fails on what it forbids, and on nothing else.

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines on which `rule` finds a fault.
    #[track_caller]
    fn faults(rule: fn(&Source) -> Vec<Fault>, file: &str, text: &str) -> Vec<usize> {
        let faults = rule(&Source::new(file, text));
        faults.iter().for_each(|fault| assert!(fault.to_string().starts_with(&format!("{file}:{}: ", fault.line))));
        faults.iter().map(|fault| fault.line).collect()
    }

    #[test]
    fn a_use_of_a_higher_layer_is_a_fault() {
        let text = "use crate::sys::Socket;\nuse crate::worker::Worker;\nfn f() { crate::server::g(); }\n";
        assert_eq!(faults(layers, "src/conn/mod.rs", text), [2, 3]);
        assert_eq!(faults(layers, "src/server.rs", text), []);
    }

    #[test]
    fn every_branch_of_a_grouped_import_counts() {
        let text = "use crate::{\n    limits::{A, worker},\n    mem,\n    server::{self, Server},\n};\n";
        assert_eq!(faults(layers, "src/http/head.rs", text), [4]);
    }

    #[test]
    fn super_is_followed_to_the_root() {
        assert_eq!(faults(layers, "src/ws/mod.rs", "use super::conn::Conn;\nuse super::http::Head;\n"), [1]);
        assert_eq!(faults(layers, "src/ws/frame.rs", "use super::conn::Conn;\nuse super::super::conn::Conn;\n"), [2]);
        assert_eq!(faults(layers, "src/ws/frame.rs", "mod tests { use super::*; use super::Frame; }\n"), []);
    }

    #[test]
    fn the_worker_may_use_the_service_and_nothing_else_above_it() {
        let text = "use crate::service::Service;\nuse crate::server::Server;\nuse crate::control::Admin;\n";
        assert_eq!(faults(layers, "src/worker/turn.rs", text), [2, 3]);
        assert_eq!(faults(layers, "src/topic/log.rs", text), [1, 2, 3]);
    }

    #[test]
    fn an_adapter_stands_beside_the_topics_and_away_from_sockets() {
        let text = "use crate::topic::A;\nuse crate::ws::B;\nuse crate::mem::C;\nuse crate::limits::D;\n\
                    use crate::sys::E;\nuse crate::conn::F;\nuse crate::worker::G;\n";
        assert_eq!(faults(layers, "src/adapter/centrifugo/codec.rs", text), [5, 6, 7]);
    }

    #[test]
    fn what_is_visible_everywhere_uses_the_lowest_layer_at_most() {
        let text = "use crate::limits::A;\nuse crate::error::B;\nuse crate::metrics::C;\n";
        assert_eq!(faults(layers, "src/sys/mod.rs", text), []);
        assert_eq!(faults(layers, "src/config.rs", "use crate::mem::A;\nuse crate::http::B;\n"), [2]);
    }

    #[test]
    fn modules_without_a_layer_are_faults() {
        assert_eq!(faults(layers, "src/util.rs", "\n"), [1]);
        assert_eq!(faults(layers, "src/conn.rs", "use crate::Server;\n"), [1]);
        assert_eq!(faults(layers, "src/lib.rs", "pub use crate::server::Server;\n"), []);
        assert_eq!(faults(layers, "src/bin/throng/main.rs", "use crate::flags::Flags;\n"), []);
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = "// crate::server\n/* /* unsafe */ crate::server */\nconst A: &str = \"crate::server\";\n\
                    const B: &str = r#\"unsafe \" libc\"#;\nconst C: (char, u8) = ('\"', b'\\'');\n\
                    fn f<'a>(_: &'a str) {}\n";
        assert_eq!(faults(layers, "src/conn.rs", text), []);
        assert_eq!(faults(unsafe_has_its_place, "src/conn.rs", text), []);
        assert_eq!(faults(libc_has_its_place, "src/conn.rs", &format!("{text}use libc::c_int;\n")), [7]);
    }

    #[test]
    fn unsafe_and_libc_have_their_place() {
        let text = "use libc::read;\nfn f() {\n    unsafe { g() }\n}\n";
        assert_eq!(faults(unsafe_has_its_place, "src/worker/mod.rs", text), [3]);
        assert_eq!(faults(libc_has_its_place, "src/worker/mod.rs", text), [1]);
        for file in ["src/sys/socket.rs", "src/ws/mask.rs"] {
            assert_eq!(faults(unsafe_has_its_place, file, text), []);
            assert_eq!(faults(libc_has_its_place, file, text), []);
        }
        assert_eq!(faults(unsafe_has_its_place, "src/lib.rs", "#![deny(unsafe_code)]\n"), []);
    }

    #[test]
    fn an_unsafe_block_needs_its_reason() {
        let near = "fn f() {\n    // SAFETY: g takes anything.\n    unsafe { g() }\n}\n";
        let far = format!("// SAFETY: too far away.{}unsafe {{ g() }}\n", "\n".repeat(7));
        assert_eq!(faults(unsafe_blocks_say_why, "src/sys/mod.rs", near), []);
        assert_eq!(faults(unsafe_blocks_say_why, "src/sys/mod.rs", &near.replace("SAFETY", "Safe")), [3]);
        assert_eq!(faults(unsafe_blocks_say_why, "src/sys/mod.rs", &far), [8]);
        assert_eq!(faults(unsafe_blocks_say_why, "src/sys/mod.rs", "unsafe impl Send for A {}\n"), []);
    }

    #[test]
    fn mio_belongs_to_the_worker() {
        let text = "use mio::Poll;\n";
        assert_eq!(faults(mio_has_its_place, "src/server.rs", text), [1]);
        assert_eq!(faults(mio_has_its_place, "src/worker/mod.rs", text), []);
    }

    #[test]
    fn long_files_are_faults_but_tests_comments_and_blank_lines_are_free() {
        let code = "const A: u8 = 1;\n".repeat(FILE_LINES_MAX);
        let free = format!("{code}\n// why\n#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert_eq!(faults(files_are_short, "src/conn.rs", &free), []);
        assert_eq!(faults(files_are_short, "src/conn.rs", &format!("{free}const B: u8 = 2;\n")), [1]);
        assert_eq!(faults(files_are_short, "src/conn/tests.rs", &code.repeat(2)), []);
    }

    #[test]
    fn long_functions_are_faults() {
        let function = |lines| format!("\npub fn f(_: [u8; 4])\n{{\n{}}}\nfn g();\n", "    h();\n\n".repeat(lines));
        assert_eq!(faults(functions_are_short, "src/conn.rs", &function(FUNCTION_LINES_MAX - 3)), []);
        assert_eq!(faults(functions_are_short, "src/conn.rs", &function(FUNCTION_LINES_MAX - 2)), [2]);
        let pointer = format!("struct A {{ f: fn(u8) }}\nmod m {{\n{}}}\n", "const B: u8 = 1;\n".repeat(100));
        assert_eq!(faults(functions_are_short, "src/conn.rs", &pointer), []);
    }

    #[test]
    fn left_overs_are_faults() {
        let text = "fn f() {\n    todo!()\n}\nfn g() {\n    dbg!(1);\n    println!();\n    unimplemented!()\n}\n";
        assert_eq!(faults(nothing_is_left_over, "src/conn.rs", text), [2, 7, 5, 6]);
        assert_eq!(faults(nothing_is_left_over, "src/bin/throng/main.rs", text), [2, 7, 5]);
        assert_eq!(faults(nothing_is_left_over, "src/conn.rs", "#[cfg(test)]\nfn f() { println!() }\n"), []);
    }

    #[test]
    fn white_space_at_the_end_of_a_line_is_a_fault() {
        assert_eq!(faults(no_trailing_white_space, "src/conn.rs", "a\nb \n// c\t\nd\r\ne"), [2, 3, 4]);
    }

    #[test]
    fn paths_of_a_machine_are_faults() {
        let text = "// see ~/notes and /proc/self/fd\n// see /srv/build/src\n// see /home/me\n";
        assert_eq!(faults(no_machine_paths, "src/conn.rs", text), [3]);
        assert_eq!(faults(|source| no_paths_below(source, Some("/srv/build")), "src/conn.rs", text), [2, 3]);
    }
}
