//! A TCP proxy that adds delay, goes silent or cuts: what a network does to Redis.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Pieces that may be under way in one direction; a sender waits when there are more.
const UNDER_WAY: usize = 1024;

/// How the proxy treats what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Everything arrives after this time, in order.
    Delay(Duration),
    /// Connections are accepted and stay open, and nothing passes.
    Silent,
    /// Connections are closed at once.
    Cut,
}

/// A running proxy. Dropping it cuts everything.
///
/// It has a thread of its own: what else a test does must not be bad weather.
#[derive(Debug)]
pub struct SlowProxy {
    /// Clients connect here on 127.0.0.1.
    pub port: u16,
    weather: watch::Sender<Weather>,
    open: Arc<Mutex<JoinSet<()>>>,
    thread: Option<Runtime>,
}

impl SlowProxy {
    /// Stands in front of `target` and adds nothing yet.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let thread = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = {
            let _inside = thread.enter();
            let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)?
        };
        let port = listener.local_addr()?.port();
        let (weather, seen) = watch::channel(Weather::Delay(Duration::ZERO));
        let open = Arc::new(Mutex::new(JoinSet::new()));
        let connections = Arc::clone(&open);
        thread.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *seen.borrow() == Weather::Cut {
                    continue;
                }
                let weather = seen.clone();
                let mut connections = connections.lock().unwrap_or_else(PoisonError::into_inner);
                while connections.try_join_next().is_some() {}
                connections.spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    // What is under way one way arrives, whatever becomes of the other.
                    tokio::join!(pass(from_client, to_server, weather.clone()), pass(from_server, to_client, weather));
                });
            }
        });
        Ok(Self { port, weather, open, thread: Some(thread) })
    }

    /// Changes the weather; [`Weather::Cut`] breaks what is open.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
        if weather == Weather::Cut {
            self.break_connections();
        }
    }

    /// Breaks what is open, once; clients may connect again at once.
    pub fn break_connections(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

impl Drop for SlowProxy {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.shutdown_background();
        }
    }
}

/// Carries one direction; ends when the sender has closed, or the receiver takes no more.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, weather: watch::Receiver<Weather>) {
    let (send, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let seen = weather.clone();
    let read = async move {
        let mut buffer = vec![0_u8; 65_536];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let piece = buffer.get(..length).unwrap_or_default().to_vec();
            let delay = match *seen.borrow() {
                Weather::Delay(delay) => delay,
                Weather::Silent | Weather::Cut => Duration::ZERO,
            };
            if send.send((Instant::now() + delay, piece)).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        let mut weather = weather;
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            if weather.wait_for(|w| *w != Weather::Silent).await.is_err() || to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    async fn round(stream: &mut TcpStream) -> Option<Duration> {
        let begin = Instant::now();
        stream.write_all(b"ping").await.ok()?;
        let mut buffer = [0_u8; 4];
        stream.read_exact(&mut buffer).await.ok()?;
        Some(begin.elapsed())
    }

    #[tokio::test]
    async fn what_was_sent_before_a_close_arrives() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let proxy = SlowProxy::start(listener.local_addr().unwrap()).unwrap();
        proxy.set(Weather::Delay(Duration::from_millis(100)));
        let mut client = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(b"last words").await.unwrap();
        // The other way has ended by then.
        client.shutdown().await.unwrap();
        let mut buffer = [0_u8; 10];
        client.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"last words");
    }

    #[tokio::test]
    async fn it_delays_goes_silent_and_cuts() {
        let proxy = SlowProxy::start(echo().await).unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        assert!(round(&mut stream).await.is_some());
        proxy.set(Weather::Delay(Duration::from_millis(60)));
        assert!(round(&mut stream).await.unwrap() >= Duration::from_millis(120));
        proxy.set(Weather::Silent);
        assert!(tokio::time::timeout(Duration::from_millis(300), round(&mut stream)).await.is_err());
        proxy.set(Weather::Cut);
        assert!(round(&mut stream).await.is_none(), "a cut connection still answers");
        let mut refused = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        assert!(round(&mut refused).await.is_none(), "a cut proxy let somebody in");
        proxy.set(Weather::Delay(Duration::ZERO));
        let mut again = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        assert!(round(&mut again).await.is_some());
    }
}
