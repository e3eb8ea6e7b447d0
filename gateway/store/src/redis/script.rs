//! The scripts that do everything that changes anything.
//!
//! One operation is one script, so it is one round trip and atomic. A server knows a script by its hash once it has
//! seen it; the router sends the whole text to one that does not.

use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::ops::Range;
use std::sync::LazyLock;

use redis::Cmd;
use sha1::{Digest as _, Sha1};
use smallvec::SmallVec;

/// A script and its hash.
pub(super) struct Script {
    text: &'static str,
    hash: LazyLock<String>,
}

macro_rules! script {
    ($name:ident, $file:literal, $flags:literal, $doc:literal) => {
        script!($name, [$flags, include_str!("lua/common.lua"), include_str!($file)], $doc);
    };
    ($name:ident, [$($part:expr),+], $doc:literal) => {
        #[doc = $doc]
        pub(super) static $name: Script = {
            const TEXT: &str = concat!($($part),+);
            Script {
                text: TEXT,
                hash: LazyLock::new(|| {
                    Sha1::digest(TEXT).iter().fold(String::with_capacity(40), |mut hash, octet| {
                        // Writing to a string cannot fail.
                        let _ = write!(hash, "{octet:02x}");
                        hash
                    })
                }),
            }
        };
    };
}

script!(COMMIT, "lua/commit.lua", "", "Makes a batch. With memory full it refuses what needs more.");
script!(
    EACH,
    [include_str!("lua/each.lua")],
    "Makes batches of one write each, and reads. With memory full it refuses as COMMIT does."
);
script!(
    CLAIM,
    "lua/claim.lua",
    "#!lua flags=allow-oom\n",
    "Claims timers; needs next to no memory, so it goes on when that is full."
);
script!(LOOK, "lua/look.lua", "", "Counts due timers.");
script!(PAGE, "lua/page.lua", "", "Names timers.");
script!(NEXT, "lua/next.lua", "", "Tells the next due time.");
script!(
    LEASE,
    "lua/lease.lua",
    "#!lua flags=allow-oom\n",
    "Works on one lease; with memory full no holder shall lose its own."
);
script!(COPY, "lua/copy.lua", "#!lua flags=allow-oom\n", "Brings a copy of a lease up to date.");
script!(TAKE, "lua/take.lua", "#!lua flags=allow-oom\n", "Takes items, which is how room is made.");
script!(
    MEET,
    "lua/meet.lua",
    "#!lua flags=allow-oom\n",
    "Tells how far a server knows what was written before it took over; that takes one small hash."
);
script!(RESTORE, "lua/restore.lua", "", "Writes again what a server that took over lacks.");
script!(COUNT, "lua/count.lua", "#!lua flags=allow-oom\n", "Counts and tidies a shard.");

/// What a script is run on: keys and arguments, all in one piece of text.
#[derive(Debug)]
pub(super) struct Call {
    text: Vec<u8>,
    keys: SmallVec<[Range<usize>; 8]>,
    /// More keys, behind all of `keys`.
    reads: SmallVec<[Range<usize>; 8]>,
    args: SmallVec<[Range<usize>; 24]>,
}

impl Default for Call {
    fn default() -> Self {
        // Most calls fit, so that the text need not grow while it is written.
        let (keys, reads, args) = (SmallVec::new(), SmallVec::new(), SmallVec::new());
        Self { text: Vec::with_capacity(512), keys, reads, args }
    }
}

impl Call {
    pub(super) fn key(&mut self, key: impl Display) {
        let range = self.written(key);
        self.keys.push(range);
    }

    /// Adds a key that comes behind all that [`Self::key`] adds, even later.
    pub(super) fn read(&mut self, key: impl Display) {
        let range = self.written(key);
        self.reads.push(range);
    }

    /// How many octets it has by now.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    pub(super) fn arg(&mut self, arg: impl AsRef<[u8]>) {
        let start = self.text.len();
        self.text.extend_from_slice(arg.as_ref());
        self.args.push(start..self.text.len());
    }

    /// Adds an argument as it is displayed.
    pub(super) fn shown(&mut self, arg: impl Display) {
        let range = self.written(arg);
        self.args.push(range);
    }

    fn written(&mut self, what: impl Display) -> Range<usize> {
        let start = self.text.len();
        // Writing to a Vec cannot fail.
        let _ = write!(self.text, "{what}");
        start..self.text.len()
    }
}

impl Script {
    /// Builds the command, with the whole text for a server that does not know the script.
    pub(super) fn command(&self, call: &Call, whole: bool) -> Cmd {
        let name = if whole { self.text } else { self.hash.as_str() };
        let keys = call.keys.len() + call.reads.len();
        let mut command = Cmd::with_capacity(3 + keys + call.args.len(), 16 + name.len() + call.text.len());
        command.arg(if whole { "EVAL" } else { "EVALSHA" }).arg(name).arg(keys);
        for range in call.keys.iter().chain(&call.reads).chain(&call.args) {
            command.arg(call.text.get(range.clone()).unwrap_or_default());
        }
        command
    }
}
