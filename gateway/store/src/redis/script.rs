//! The scripts that do everything that changes anything.
//!
//! One operation is one script, so it is one round trip and atomic. A server knows a script by its hash once it has
//! seen it; the router sends the whole text to one that does not.

use std::fmt::Write as _;
use std::sync::LazyLock;

use redis::Cmd;
use sha1::{Digest as _, Sha1};

/// A script and its hash.
pub(super) struct Script {
    text: &'static str,
    hash: LazyLock<String>,
}

macro_rules! script {
    ($name:ident, $file:literal, $flags:literal, $doc:literal) => {
        #[doc = $doc]
        pub(super) static $name: Script = {
            const TEXT: &str = concat!($flags, include_str!("lua/common.lua"), include_str!($file));
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
script!(COPY, "lua/copy.lua", "#!lua flags=allow-oom\n", "Brings copies of a lease up to date.");
script!(TAKE, "lua/take.lua", "#!lua flags=allow-oom\n", "Takes items, which is how room is made.");
script!(COUNT, "lua/count.lua", "#!lua flags=allow-oom\n", "Counts and tidies a shard.");

/// What a script is run on.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) keys: Vec<String>,
    pub(super) args: Vec<Vec<u8>>,
}

impl Call {
    pub(super) fn key(&mut self, key: String) {
        self.keys.push(key);
    }

    pub(super) fn arg(&mut self, arg: impl Into<Vec<u8>>) {
        self.args.push(arg.into());
    }

    pub(super) fn number(&mut self, number: u64) {
        self.args.push(number.to_string().into_bytes());
    }

    pub(super) fn count(&mut self, count: usize) {
        self.args.push(count.to_string().into_bytes());
    }
}

impl Script {
    /// Builds the command, with the whole text for a server that does not know the script.
    pub(super) fn command(&self, call: &Call, whole: bool) -> Cmd {
        let mut command = if whole { redis::cmd("EVAL") } else { redis::cmd("EVALSHA") };
        if whole {
            command.arg(self.text);
        } else {
            command.arg(self.hash.as_str());
        }
        command.arg(call.keys.len()).arg(&call.keys);
        for arg in &call.args {
            command.arg(arg.as_slice());
        }
        command
    }
}
