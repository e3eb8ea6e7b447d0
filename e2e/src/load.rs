//! Sends MESSAGE requests over UDP at a steady rate, repeats what is not answered, counts the answers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tokio::net::UdpSocket;

/// What is sent.
#[derive(Debug, Clone)]
pub struct Load {
    /// UDP port on 127.0.0.1 that gets the requests.
    pub target: u16,
    /// Own port, since a gateway knows partners by their address.
    pub own: u16,
    /// How many requests.
    pub count: u32,
    /// How many a second.
    pub rate: u32,
    /// Makes Call-IDs of this run differ from those of others.
    pub label: String,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Time from the first request to the last answer.
    pub took: Duration,
    /// Requests that had to be repeated after 500 ms (timer E of RFC 3261).
    pub repeated: u32,
    /// Final answers in the 200 class.
    pub delivered: u32,
    /// Times from a request to its final answer, in the order of the answers.
    pub latencies: Vec<Duration>,
}

/// Returns the time that this part (0 to 1) of the latencies does not exceed.
pub fn percentile(latencies: &[Duration], part: f64) -> Duration {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a list of measured times"
    )]
    let place = (last as f64 * part.clamp(0.0, 1.0)).round() as usize;
    sorted.get(place).copied().unwrap_or_default()
}

impl Load {
    /// Sends everything and waits for the answers.
    ///
    /// # Errors
    ///
    /// When a request gets another answer than 2xx, or is not answered within 5 s.
    pub async fn run(&self) -> Result<Outcome> {
        let socket = UdpSocket::bind(("127.0.0.1", self.own)).await?;
        socket.connect(("127.0.0.1", self.target)).await?;
        let begin = Instant::now();
        let mut open: HashMap<u32, (Instant, Instant)> = HashMap::new();
        let (mut sent, mut delivered, mut repeated) = (0_u32, 0_u32, 0_u32);
        let mut latencies = Vec::new();
        let mut buffer = vec![0_u8; 8192];
        while delivered < self.count {
            let due = u32::try_from(begin.elapsed().as_micros() * u128::from(self.rate) / 1_000_000)?.min(self.count);
            while sent < due {
                let now = Instant::now();
                self.send(&socket, sent).await?;
                open.insert(sent, (now, now));
                sent += 1;
            }
            let now = Instant::now();
            for (number, (first, last)) in &mut open {
                ensure!(now - *first < Duration::from_secs(5), "request {number} was not answered within 5 s");
                if now - *last > Duration::from_millis(500) {
                    self.send(&socket, *number).await?;
                    *last = now;
                    repeated += 1;
                }
            }
            let pause = Duration::from_millis(2);
            let until = tokio::time::Instant::now() + pause;
            while let Ok(received) = tokio::time::timeout_at(until, socket.recv(&mut buffer)).await {
                let answer = String::from_utf8_lossy(buffer.get(..received?).unwrap_or_default()).into_owned();
                let status = answer.get(8..11).unwrap_or_default();
                if status.starts_with('1') {
                    continue;
                }
                let number = answer.lines().find_map(|l| l.strip_prefix("Call-ID: ")?.split('-').next()?.parse().ok());
                let Some(number) = number else { bail!("an answer without our Call-ID: {answer}") };
                if let Some((first, _)) = open.remove(&number) {
                    latencies.push(first.elapsed());
                    ensure!(status.starts_with('2'), "request {number} got: {answer}");
                    delivered += 1;
                }
            }
        }
        Ok(Outcome { took: begin.elapsed(), repeated, delivered, latencies })
    }

    async fn send(&self, socket: &UdpSocket, number: u32) -> Result<()> {
        let body = format!("Message number {number}: shall we meet at the usual place at noon?");
        let request = format!(
            "MESSAGE sip:juliet@corp.example SIP/2.0\r\n\
             Via: SIP/2.0/UDP 127.0.0.1:{own};rport;branch=z9hG4bK{label}-{number}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:user{user}@partner.example>;tag={number}\r\n\
             To: <sip:juliet@corp.example>\r\nCall-ID: {number}-{label}\r\nCSeq: 1 MESSAGE\r\n\
             User-Agent: load\r\nAllow: MESSAGE, OPTIONS\r\nContent-Type: text/plain;charset=UTF-8\r\n\
             Content-Length: {length}\r\n\r\n{body}",
            own = self.own,
            label = self.label,
            user = number % 200,
            length = body.len(),
        );
        socket.send(request.as_bytes()).await?;
        Ok(())
    }
}
