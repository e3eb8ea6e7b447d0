//! Connections: opening one, and keeping one open.
//!
//! A [`Node`] has one connection that all operations share. A task of its own opens it, looks after it and opens it
//! anew with growing pauses, asking for credentials and certificates each time. While there is none, operations
//! fail at once but for a moment after the loss, so that nothing piles up behind a server that is away.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisConnectionInfo, RedisError, Value, cmd};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::config::{Credentials, Mode, RedisConfig, join, split};
use super::recent::Recent;
use super::tls::{Judged, Refusal};

/// The first pause before a connection is opened anew; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause shortly after a loss, while a fail-over is likely, and later.
const PAUSE_SOON: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(30);
/// How long after a loss operations wait for the next connection, and for how long: a fail-over of a living primary takes less.
const FRESH: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_millis(900);
/// How long a look at a suspect connection may take.
const PROBE: Duration = Duration::from_secs(1);
/// How often the sentinels are asked who is the primary. After a fail-over the former one takes writes for 8 s more if it is alive,
/// and forgets them when it becomes a replica.
const LOOK: Duration = Duration::from_millis(250);

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why a server cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It does not answer, or not yet.
    Away(String),
    /// It does not let us in.
    Refused(String),
    /// It lets us in, and does not let us do what we must.
    Forbidden(String),
    /// It does not take our certificate.
    CertificateRefused(String),
    /// It is no server of the configured mode, or too old.
    WrongMode(String),
    /// It is no primary.
    Replica,
}

impl Trouble {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Away(what)
            | Self::Refused(what)
            | Self::Forbidden(what)
            | Self::CertificateRefused(what)
            | Self::WrongMode(what) => what.clone(),
            Self::Replica => "the server is a replica and takes no writes".to_owned(),
        }
    }

    fn of(address: &str, error: &RedisError) -> Self {
        let code = error.code().unwrap_or_default();
        if code == "NOPERM" {
            Self::Forbidden(format!("{address}: {error}"))
        } else if error.kind() == ErrorKind::AuthenticationFailed || matches!(code, "WRONGPASS" | "NOAUTH") {
            Self::Refused(format!("{address} refuses user or password"))
        } else {
            Self::Away(format!("{address}: {error}"))
        }
    }

    fn of_certificate(address: &str, refusal: &Refusal) -> Option<Self> {
        let said = refusal.text()?;
        Some(Self::CertificateRefused(format!("{address} refuses the client certificate, or the lack of one: {said}")))
    }
}

/// Why an operation got no good answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer; it may have happened all the same.
    Away(String),
    /// The server refuses.
    Refused {
        code: String,
        detail: String,
        /// Where else to ask, for MOVED and ASK.
        elsewhere: Option<String>,
    },
}

/// What a server says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: String,
    mode: String,
    role: String,
}

/// An open connection; closed when dropped.
struct Live {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
    address: String,
    hello: Hello,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Opens a stream to a server; `refusal` tells later whether it did not take our certificate.
pub(super) async fn open(config: &RedisConfig, address: &str, refusal: &Refusal) -> Result<Box<dyn Stream>, Trouble> {
    let away = |error: &dyn std::fmt::Display| Trouble::Away(format!("{address}: {error}"));
    let (host, port) = split(address).ok_or_else(|| Trouble::Away(format!("{address}: no address")))?;
    let tcp = TcpStream::connect((host, port)).await.map_err(|error| away(&error))?;
    // Small commands must not wait for one another.
    tcp.set_nodelay(true).map_err(|error| away(&error))?;
    let Some(tls) = &config.tls else { return Ok(Box::new(tcp)) };
    let name = tls.server_name.as_deref().unwrap_or(host).to_owned();
    let name = ServerName::try_from(name).map_err(|error| away(&error))?;
    let stream = tokio_rustls::TlsConnector::from((tls.config)()).connect(name, tcp).await.map_err(|error| {
        // With TLS 1.2 the certificate is judged here.
        refusal.note(&error);
        Trouble::of_certificate(address, refusal).unwrap_or_else(|| Trouble::Away(format!("{address}: TLS: {error}")))
    })?;
    Ok(Box::new(Judged { stream, refusal: refusal.clone() }))
}

/// What a connection shows of the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    Nothing,
    Password,
    UserAndPassword,
}

/// Returns what a connection starts with.
pub(super) fn identity(config: &RedisConfig, show: Show, database: u32) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default().set_skip_set_lib_name().set_db(i64::from(database));
    if let Some(credentials) = (config.credentials)().filter(|_| show != Show::Nothing) {
        if let Some(user) = credentials.user.as_ref().filter(|_| show == Show::UserAndPassword) {
            info = info.set_username(user);
        }
        info = info.set_password(&credentials.password);
    }
    info
}

async fn dial(config: &RedisConfig, address: &str, show: Show, database: u32) -> Result<Live, Trouble> {
    let refusal = Refusal::default();
    let stream = open(config, address, &refusal).await?;
    let trouble = |error| Trouble::of_certificate(address, &refusal).unwrap_or_else(|| Trouble::of(address, &error));
    // Each operation has a deadline of its own.
    let settings = AsyncConnectionConfig::new().set_response_timeout(None);
    let identity = identity(config, show, database);
    let (connection, driver) =
        MultiplexedConnection::new_with_config(&identity, stream, settings).await.map_err(trouble)?;
    let mut live =
        Live { connection, driver: tokio::spawn(driver), address: address.to_owned(), hello: Hello::default() };
    live.hello = hello(&mut live.connection).await.map_err(trouble)?;
    Ok(live)
}

async fn hello(connection: &mut MultiplexedConnection) -> Result<Hello, RedisError> {
    let reply = connection.send_packed_command(&cmd("HELLO")).await?.extract_error()?;
    let mut hello = Hello::default();
    let pairs: Vec<(Value, Value)> = match reply {
        Value::Map(pairs) => pairs,
        Value::Array(items) => {
            let mut items = items.into_iter();
            std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
        }
        _ => Vec::new(),
    };
    for (name, value) in &pairs {
        let (Some(name), Some(value)) = (text(name), text(value)) else { continue };
        match name {
            "version" => value.clone_into(&mut hello.version),
            "mode" => value.clone_into(&mut hello.mode),
            "role" => value.clone_into(&mut hello.role),
            _ => {}
        }
    }
    Ok(hello)
}

/// Returns a reply's text.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// What a node connects to.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// The first primary among the configured addresses.
    Configured,
    /// One primary of a Cluster.
    Address(String),
    /// Any server of a Cluster, to ask it for the layout.
    Seed(String),
}

async fn connect(config: &RedisConfig, target: &Target) -> Result<Live, Trouble> {
    let limit = config.connect_timeout;
    let late = |address: &str| Trouble::Away(format!("{address} does not answer within {} ms", limit.as_millis()));
    let any_role = matches!(target, Target::Seed(_));
    let primary = async |address: &str, mode: &str| {
        let live = timeout(limit, dial(config, address, Show::UserAndPassword, config.database)).await;
        let live = live.unwrap_or_else(|_| Err(late(address)))?;
        let major = live.hello.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if live.hello.mode != mode {
            let found = &live.hello.mode;
            return Err(Trouble::WrongMode(format!("{address} runs in mode {found:?}, {mode:?} is configured")));
        }
        if major.is_none_or(|major| major < 7) {
            let version = &live.hello.version;
            return Err(Trouble::WrongMode(format!("{address} is version {version}, 7.0 is the oldest that serves")));
        }
        if live.hello.role != "master" && !any_role {
            return Err(Trouble::Replica);
        }
        Ok(live)
    };
    let mut trouble = Trouble::Away("no server is configured".to_owned());
    match (target, &config.mode) {
        (Target::Address(address) | Target::Seed(address), _) => return primary(address, "cluster").await,
        (Target::Configured, Mode::Sentinel { master }) => {
            for address in &config.addresses {
                let asked = timeout(limit, ask_sentinel(config, address, master)).await;
                trouble = match asked.unwrap_or_else(|_| Err(late(address))) {
                    Ok(found) => match primary(&found, "standalone").await {
                        Ok(live) => return Ok(live),
                        Err(trouble) => trouble,
                    },
                    Err(trouble) => trouble,
                };
            }
        }
        (Target::Configured, Mode::Standalone | Mode::Cluster) => {
            for address in &config.addresses {
                match primary(address, "standalone").await {
                    Ok(live) => return Ok(live),
                    Err(found) => trouble = found,
                }
            }
        }
    }
    Err(trouble)
}

async fn connect_and_meet(config: &RedisConfig, target: &Target, recent: Option<&Recent>) -> Result<Live, Trouble> {
    let mut live = connect(config, target).await?;
    if let Some(recent) = recent {
        recent.meet(&mut live.connection).await.map_err(|error| Trouble::of(&live.address, &error))?;
    }
    Ok(live)
}

/// Asks a sentinel for the primary.
async fn ask_sentinel(config: &RedisConfig, address: &str, master: &str) -> Result<String, Trouble> {
    let mut live = dial_sentinel(config, address).await?;
    primary_of(&mut live, master).await
}

async fn dial_sentinel(config: &RedisConfig, address: &str) -> Result<Live, Trouble> {
    // Sentinels often have no password, and refuse one then; one that has a password often has no users.
    let mut live = dial(config, address, Show::Nothing, 0).await;
    let shown = match (config.credentials)() {
        None => &[][..],
        Some(Credentials { user: None, .. }) => &[Show::Password],
        Some(Credentials { user: Some(_), .. }) => &[Show::UserAndPassword, Show::Password],
    };
    for show in shown.iter().copied() {
        if !matches!(live, Err(Trouble::Refused(_))) {
            break;
        }
        live = dial(config, address, show, 0).await;
    }
    let live = live?;
    if live.hello.mode != "sentinel" {
        let found = &live.hello.mode;
        return Err(Trouble::WrongMode(format!("{address} runs in mode {found:?} and is no sentinel")));
    }
    Ok(live)
}

async fn primary_of(live: &mut Live, master: &str) -> Result<String, Trouble> {
    let mut ask = cmd("SENTINEL");
    ask.arg("get-master-addr-by-name").arg(master);
    let reply = live.connection.send_packed_command(&ask).await.and_then(Value::extract_error);
    let address = &live.address;
    match reply.map_err(|error| Trouble::of(address, &error))? {
        Value::Array(parts) => match parts.as_slice() {
            [host, port] => text(host).zip(text(port).and_then(|port| port.parse().ok())),
            _ => None,
        }
        .map(|(host, port)| join(host, port))
        .ok_or_else(|| Trouble::Away(format!("{address} answers with no address"))),
        _ => Err(Trouble::WrongMode(format!("the sentinel {address} knows no primary named {master:?}"))),
    }
}

/// Returns when the sentinels name another primary than this one; never in other modes. The first sentinel that answers counts, as
/// for [`connect`].
async fn replaced(config: &RedisConfig, primary: &str) -> Trouble {
    let Mode::Sentinel { master } = &config.mode else { return std::future::pending().await };
    loop {
        for address in &config.addresses {
            let Ok(Ok(mut sentinel)) = timeout(config.connect_timeout, dial_sentinel(config, address)).await else {
                continue;
            };
            while let Ok(Ok(named)) = timeout(PROBE, primary_of(&mut sentinel, master)).await {
                if named != primary {
                    return Trouble::Away(format!("the sentinels name {named} in place of {primary}"));
                }
                sleep(LOOK).await;
            }
        }
        sleep(LOOK).await;
    }
}

#[derive(Clone)]
enum State {
    Starting,
    Up { connection: MultiplexedConnection, address: String, hello: Hello },
    Down { trouble: Trouble, since: Instant },
}

/// One server, with a connection that is kept open.
pub(super) struct Node {
    state: watch::Receiver<State>,
    suspect: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    /// Starts connecting. `recent` is told of each connection before anybody uses it.
    pub(super) fn start(config: Arc<RedisConfig>, target: Target, recent: Option<Arc<Recent>>) -> Self {
        let (sender, state) = watch::channel(State::Starting);
        let suspect = Arc::new(Notify::new());
        let task = tokio::spawn(keep(config, target, recent, sender, Arc::clone(&suspect)));
        Self { state, suspect, task }
    }

    /// Has the connection looked at, since something about it was wrong.
    pub(super) fn suspect(&self) {
        self.suspect.notify_one();
    }

    /// Returns the address of the server while there is a connection.
    pub(super) fn address(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Up { address, .. } => Some(address.clone()),
            State::Starting | State::Down { .. } => None,
        }
    }

    /// Returns what the server said about itself, or why there is no connection.
    pub(super) fn hello(&self) -> Result<Hello, Trouble> {
        match &*self.state.borrow() {
            State::Up { hello, .. } => Ok(hello.clone()),
            State::Starting => Err(Trouble::Away("the first connection is being opened".to_owned())),
            State::Down { trouble, .. } => Err(trouble.clone()),
        }
    }

    /// Waits until the first attempt to connect ended.
    pub(super) async fn tried(&self) {
        // The sender lives as long as the task, which lives as long as this.
        let _ = self.state.clone().wait_for(|state| !matches!(state, State::Starting)).await;
    }

    async fn connection(&self, deadline: Instant) -> Result<MultiplexedConnection, Failure> {
        if let State::Up { connection, .. } = &*self.state.borrow() {
            return Ok(connection.clone());
        }
        let mut state = self.state.clone();
        let until = match &*state.borrow_and_update() {
            State::Up { connection, .. } => return Ok(connection.clone()),
            State::Starting => deadline,
            State::Down { since, .. } if since.elapsed() < FRESH => deadline.min(Instant::now() + GRACE),
            State::Down { trouble, .. } => return Err(Failure::Away(trouble.text())),
        };
        let waited = timeout_at(until, state.wait_for(|state| matches!(state, State::Up { .. }))).await;
        if let Ok(Ok(found)) = waited
            && let State::Up { connection, .. } = &*found
        {
            return Ok(connection.clone());
        }
        Err(Failure::Away(self.hello().err().map_or_else(|| "connecting".to_owned(), |trouble| trouble.text())))
    }

    /// Sends a command and waits for its answer; `asking` tells a server of a Cluster that it was named by ASK.
    pub(super) async fn send(&self, command: &Cmd, asking: bool, deadline: Instant) -> Result<Value, Failure> {
        let mut connection = self.connection(deadline).await?;
        let answer = timeout_at(deadline, async {
            if !asking {
                return connection.send_packed_command(command).await;
            }
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline.add_command(cmd("ASKING")).add_command(command.clone());
            let answers = connection.send_packed_commands(&pipeline, 1, 1).await?;
            Ok(answers.into_iter().next().unwrap_or_default())
        })
        .await;
        self.judge(answer).and_then(|value| self.judge_value(value))
    }

    /// Sends commands in one piece, and waits for the answers of all.
    pub(super) async fn send_together(
        &self,
        commands: impl ExactSizeIterator<Item = Cmd>,
        deadline: Instant,
    ) -> Result<Vec<Result<Value, Failure>>, Failure> {
        let mut connection = self.connection(deadline).await?;
        let count = commands.len();
        let mut pipeline = Pipeline::with_capacity(count);
        for command in commands {
            pipeline.add_command(command);
        }
        let answers = timeout_at(deadline, connection.send_packed_commands(&pipeline, 0, count)).await;
        let answers = self.judge(answers)?;
        if answers.len() != count {
            return Err(Failure::Away("another number of answers than of questions".to_owned()));
        }
        Ok(answers.into_iter().map(|answer| self.judge_value(answer)).collect())
    }

    fn judge<T>(&self, answer: Result<Result<T, RedisError>, Elapsed>) -> Result<T, Failure> {
        let Ok(answer) = answer else {
            self.suspect();
            return Err(Failure::Away("no answer in time".to_owned()));
        };
        answer.map_err(|error| self.failure(&error))
    }

    fn judge_value(&self, value: Value) -> Result<Value, Failure> {
        value.extract_error().map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &RedisError) -> Failure {
        if let Some(code) = error.code().filter(|_| !error.is_io_error()) {
            return Failure::Refused {
                code: code.to_owned(),
                detail: error.detail().unwrap_or_default().to_owned(),
                elsewhere: error.redirect_node().map(|(address, _)| address.to_owned()),
            };
        }
        self.suspect();
        Failure::Away(error.to_string())
    }
}

/// Keeps a connection open.
async fn keep(
    config: Arc<RedisConfig>,
    target: Target,
    recent: Option<Arc<Recent>>,
    state: watch::Sender<State>,
    suspect: Arc<Notify>,
) {
    let mut pause = PAUSE_MIN;
    loop {
        let trouble = match connect_and_meet(&config, &target, recent.as_deref()).await {
            Ok(mut live) => {
                pause = PAUSE_MIN;
                let (connection, address, hello) = (live.connection.clone(), live.address.clone(), live.hello.clone());
                tracing::debug!(address, "connected to the state store");
                state.send_replace(State::Up { connection, address, hello });
                let primary = live.address.clone();
                tokio::select! {
                    trouble = watch_over(&mut live, &suspect) => trouble,
                    trouble = replaced(&config, &primary) => trouble,
                }
            }
            Err(trouble) => trouble,
        };
        tracing::debug!(trouble = trouble.text(), "no connection to the state store");
        let since = match &*state.borrow() {
            State::Down { since, .. } => *since,
            State::Starting | State::Up { .. } => Instant::now(),
        };
        state.send_replace(State::Down { trouble, since });
        // Not all processes at once.
        sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = (pause * 2).min(if since.elapsed() < SOON { PAUSE_SOON } else { PAUSE_MAX });
    }
}

/// Returns when a connection is of no more use.
async fn watch_over(live: &mut Live, suspect: &Notify) -> Trouble {
    loop {
        tokio::select! {
            _ = &mut live.driver => return Trouble::Away(format!("{} closed the connection", live.address)),
            () = suspect.notified() => {}
        }
        match timeout(PROBE, hello(&mut live.connection)).await {
            Ok(Ok(hello)) if hello.role == "master" => {}
            Ok(Ok(_)) => return Trouble::Replica,
            Ok(Err(error)) => return Trouble::of(&live.address, &error),
            Err(_) => return Trouble::Away(format!("{} does not answer", live.address)),
        }
    }
}
