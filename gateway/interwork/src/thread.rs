//! Thread and Call-ID: the two names of a conversation (interworking specification §5.6).

use isthmus_model::Entropy;

/// The longest Call-ID that becomes a thread; longer ones are not worth their bytes in every stanza.
const LONGEST_THREAD: usize = 512;

/// Chooses the Call-ID for a conversation.
///
/// It is the thread where that is a good Call-ID and `in_use` says that no other pair's dialog or transaction has
/// it; otherwise it is random, and the caller stores the thread beside it so that replies can carry it.
pub fn call_id_for(thread: Option<&str>, in_use: impl FnOnce(&str) -> bool, entropy: &mut dyn Entropy) -> String {
    match thread.filter(|thread| is_call_id(thread)) {
        Some(thread) if !in_use(thread) => thread.to_owned(),
        _ => format!("{:016x}{:016x}", entropy.next_u64(), entropy.next_u64()),
    }
}

/// Chooses the thread of stanzas for a Call-ID: the one stored for it, else the Call-ID itself. `None` for a
/// Call-ID that is too long to serve.
pub fn thread_for(call_id: &str, stored: Option<&str>) -> Option<String> {
    match stored {
        Some(thread) => Some(thread.to_owned()),
        None => (!call_id.is_empty() && call_id.len() <= LONGEST_THREAD).then(|| call_id.to_owned()),
    }
}

/// True for what every SIP stack takes as a Call-ID and nobody guesses by chance.
fn is_call_id(thread: &str) -> bool {
    (8..=128).contains(&thread.len()) && thread.bytes().all(|b| b.is_ascii_alphanumeric() || b".!%*_+'~-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_thread_is_the_call_id_and_comes_back_as_thread() {
        // I-30
        let mut next = 0xfeed;
        let mut entropy = || {
            next += 1;
            next
        };
        for good in ["e0ffe42b28561960c6b12b944a092794b9683a38", "12345678", "a.!%*_+'~-"] {
            assert_eq!(call_id_for(Some(good), |_| false, &mut entropy), good);
            assert_eq!(thread_for(good, None).as_deref(), Some(good));
        }
        let random = call_id_for(None, |_| false, &mut entropy);
        assert_eq!(random, "000000000000feee000000000000feef");
        for bad in ["short", "with blank", "a\r\nVia: x", "täglich1", "a@b.example", &"x".repeat(129)] {
            let call_id = call_id_for(Some(bad), |_| false, &mut entropy);
            assert!(call_id.len() == 32 && call_id != bad, "{bad}");
            assert_eq!(thread_for(&call_id, Some(bad)).as_deref(), Some(bad));
        }
    }

    #[test]
    fn a_thread_that_another_pair_uses_is_no_call_id() {
        let mut entropy = || 7;
        let call_id = call_id_for(Some("12345678"), |thread| thread == "12345678", &mut entropy);
        assert_ne!(call_id, "12345678");
    }

    #[test]
    fn an_endless_call_id_is_no_thread() {
        assert_eq!(thread_for(&"x".repeat(513), None), None);
        assert_eq!(thread_for("", None), None);
    }
}
