//! Redis servers on 127.0.0.1, each with a folder and a clock of its own.
//!
//! Each is the child of a shell that kills it when this process is gone, whatever the reason.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const START: Duration = Duration::from_secs(20);

/// The server that tests start: Debian's, or the one that `ISTHMUS_REDIS_SERVER` names.
pub(crate) fn redis() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let named = std::env::var("ISTHMUS_REDIS_SERVER").ok().filter(|name| !name.is_empty());
        named.unwrap_or_else(|| "redis-server".to_owned())
    })
}

/// The server of Valkey, where `make install` puts it.
#[cfg(target_arch = "x86_64")]
pub(crate) fn valkey() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let of = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache"))).expect("there is a HOME");
        let program = cache.join("isthmus/valkey-9.1.2/valkey-server");
        assert!(program.exists(), "{} is not there (`make install`)", program.display());
        program.to_str().unwrap().to_owned()
    })
}

/// How far the clock of a server is ahead.
pub(crate) struct Offset {
    file: std::fs::File,
    path: PathBuf,
}

impl Offset {
    pub(crate) fn new(dir: &std::path::Path) -> Arc<Self> {
        let path = dir.join("clock");
        let file = std::fs::File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        file.write_all_at(&[0; 8], 0).unwrap();
        Arc::new(Self { file, path })
    }

    pub(crate) fn read(&self) -> Duration {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, 0).unwrap();
        Duration::from_micros(u64::from_ne_bytes(bytes))
    }

    pub(crate) fn advance(&self, by: Duration) {
        let ahead = u64::try_from((self.read() + by).as_micros()).unwrap();
        self.file.write_all_at(&ahead.to_ne_bytes(), 0).unwrap();
    }
}

/// The library that moves clocks, compiled once.
fn clock_library() -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let (ours, library) = (dir.join(format!("clock-{}.so", std::process::id())), dir.join("redis-clock.so"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contract/live/clock.c");
        let done = Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&ours).arg(source).status();
        assert!(done.expect("cc is installed (`make install`)").success(), "clock.c does not compile");
        std::fs::rename(&ours, &library).unwrap();
        library
    })
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running server.
pub(crate) struct Server {
    shell: Child,
    _alive: ChildStdin,
    pid: String,
    pub(crate) port: u16,
    dir: Arc<TempDir>,
    offset: Arc<Offset>,
    /// What its default user must say.
    password: Option<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal("KILL");
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

impl Server {
    /// Starts a server with a clock and a folder of its own.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_of(redis(), args)
    }

    /// As [`Self::start`], of a program.
    pub(crate) fn start_of(program: &str, args: &[&str]) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let offset = Offset::new(dir.path());
        Self::start_in(&dir, &offset, &[program], args)
    }

    /// Starts a server in a folder, with a clock that others may have too.
    pub(crate) fn start_in(dir: &Arc<TempDir>, offset: &Arc<Offset>, program: &[&str], args: &[&str]) -> Self {
        // Another process may take the port before the server does.
        for _ in 0..5 {
            if let Some(server) = Self::try_start(program, args, free_port(), dir, offset) {
                return server;
            }
        }
        panic!("{program:?} does not start")
    }

    /// Starts a server on a port, in a folder that may hold what one before it left.
    pub(crate) fn try_start(
        program: &[&str],
        args: &[&str],
        port: u16,
        dir: &Arc<TempDir>,
        offset: &Arc<Offset>,
    ) -> Option<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", "\"$@\" >>\"$0\" 2>&1 & echo $!; read -r line; kill -9 $!"])
            .arg(dir.path().join("log"))
            .args(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no", "--dir"])
            .arg(dir.path())
            .args(args)
            .env("LD_PRELOAD", clock_library())
            .env("ISTHMUS_CLOCK", &offset.path)
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let (alive, mut out) = (shell.stdin.take()?, BufReader::new(shell.stdout.take()?));
        let mut pid = String::new();
        out.read_line(&mut pid).ok()?;
        let (dir, offset) = (Arc::clone(dir), Arc::clone(offset));
        let password = args.iter().position(|word| *word == "--requirepass").and_then(|at| args.get(at + 1));
        let password = password.map(ToString::to_string);
        let server = Self { shell, _alive: alive, pid: pid.trim().to_owned(), port, dir, offset, password };
        let started = Instant::now();
        while started.elapsed() < START {
            if server.try_say(&["PING"]).is_some() {
                return Some(server);
            }
            if !std::path::Path::new(&format!("/proc/{}", server.pid)).exists() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Kills the server, and starts it again on its port with the files that it left.
    pub(crate) fn restart(self, args: &[&str]) -> Self {
        let (port, dir, offset) = (self.port, Arc::clone(&self.dir), Arc::clone(&self.offset));
        drop(self);
        let started = Instant::now();
        while started.elapsed() < START {
            if let Some(server) = Self::try_start(&[redis()], args, port, &dir, &offset) {
                return server;
            }
        }
        panic!("the server does not start again")
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A file in the server's folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn offset(&self) -> Arc<Offset> {
        Arc::clone(&self.offset)
    }

    /// Sends a signal to the server.
    pub(crate) fn signal(&self, name: &str) {
        let _ = Command::new("kill").args(["-s", name, &self.pid]).stderr(Stdio::null()).status();
    }

    /// Runs a command; the answer is text, one line a value.
    pub(crate) fn say(&self, words: &[&str]) -> String {
        self.try_say(words).unwrap_or_else(|| panic!("{words:?} failed"))
    }

    /// Runs a command, `None` when the server does not answer or refuses.
    pub(crate) fn try_say(&self, words: &[&str]) -> Option<String> {
        let out = Command::new("redis-cli")
            .args(["-e", "-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(words)
            .envs(self.password.as_ref().map(|password| ("REDISCLI_AUTH", password)))
            .stdin(Stdio::null())
            .output()
            .expect("redis-cli is installed (`make install`)");
        let text = String::from_utf8_lossy(&out.stdout).trim_end().to_owned();
        out.status.success().then_some(text)
    }
}
