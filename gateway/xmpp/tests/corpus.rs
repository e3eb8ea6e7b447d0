//! Runs the fuzz target over its committed corpus.

use std::fs;
use std::path::Path;
use std::time::Instant;

#[test]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn the_corpus_of_the_component_stream_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/component_stream");
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 25, "the corpus is there");
    for file in files {
        let data = fs::read(&file).unwrap();
        println!("{}", file.display());
        isthmus_xmpp::fuzz::component_stream(&data, Instant::now());
        // and in pieces of every size
        for size in 0..0x40 {
            let mut cut = data.clone();
            if let Some(first) = cut.first_mut() {
                *first = *first & 0x40 | size;
            }
            isthmus_xmpp::fuzz::component_stream(&cut, Instant::now());
        }
    }
}
