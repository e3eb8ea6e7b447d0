//! Replays the committed corpus of each fuzz target through the function that the target calls.

use std::path::Path;

use isthmus_sip::fuzz;

fn replay(target: &str, call: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("entry").path();
        call(&std::fs::read(&path).expect("file"));
        files += 1;
    }
    assert!(files >= 5, "only {files} files in {}", folder.display());
}

#[test]
fn the_corpus_of_sip_message_holds() {
    replay("sip_message", fuzz::sip_message);
}

#[test]
fn the_corpus_of_sip_framer_holds() {
    replay("sip_framer", fuzz::sip_framer);
}

#[test]
fn the_corpus_of_sip_uri_holds() {
    replay("sip_uri", fuzz::sip_uri);
}

#[test]
fn the_corpus_of_sdp_holds() {
    replay("sdp", fuzz::sdp);
}
