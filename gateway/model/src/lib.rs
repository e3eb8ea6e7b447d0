//! Protocol-neutral words: domains, addresses, presence, messages, ids, time.
