use std::io::Write as _;
use std::os::unix::fs::symlink;

use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::super::tests::{Folder, REALM, knows, partner};
use super::super::{load, watch as watch_now};
use super::*;

/// Less than the time to the second look, so that only the kernel's word can be in time. A change is due within 1 s; the
/// rest is for a busy machine.
const SOON: Duration = Duration::from_secs(4);
/// Long enough for a change that is complete to be told.
const QUIET: Duration = Duration::from_millis(1500);

async fn changed(changes: &mut Receiver<()>) -> bool {
    matches!(timeout(SOON, changes.recv()).await, Ok(Some(())))
}

async fn is_quiet(changes: &mut Receiver<()>) -> bool {
    timeout(QUIET, changes.recv()).await.is_err()
}

// K-89
#[tokio::test]
async fn an_edit_in_place_is_taken_when_the_file_is_closed() {
    let folder = Folder::new(&[("realm.yaml", REALM), ("a.yaml", &partner("a.example"))]);
    let former = folder.load();
    let mut changes = watch_now(&folder.options);
    let mut file = fs::OpenOptions::new().append(true).open(folder.path("a.yaml")).unwrap();
    writeln!(file, "---\n{}", partner("b.example")).unwrap();
    assert!(is_quiet(&mut changes).await, "a file still being written is not taken");
    drop(file);
    assert!(changed(&mut changes).await);
    assert!(knows(&load(&folder.options, Some(&former)).unwrap(), "b.example"));
    assert!(is_quiet(&mut changes).await, "our own reading is no change");
}

#[tokio::test]
async fn a_new_file_is_taken_when_it_is_closed_or_renamed() {
    let folder = Folder::new(&[("realm.yaml", REALM)]);
    let mut changes = watch_now(&folder.options);
    let mut file = fs::File::create(folder.path("new.yaml")).unwrap();
    assert!(is_quiet(&mut changes).await, "created, nothing written yet");
    file.write_all(partner("b.example").as_bytes()).unwrap();
    drop(file);
    assert!(changed(&mut changes).await);

    let mut changes = watch_now(&folder.options);
    folder.write("sub/c.tmp", &partner("c.example"));
    fs::rename(folder.path("sub/c.tmp"), folder.path("sub/c.yaml")).unwrap();
    assert!(changed(&mut changes).await);
    assert!(knows(&folder.load(), "c.example"));

    let mut changes = watch_now(&folder.options);
    fs::remove_file(folder.path("sub/c.yaml")).unwrap();
    assert!(changed(&mut changes).await);
}

// K-89
#[tokio::test]
async fn a_swap_of_a_mounted_config_map_is_taken() {
    let folder = Folder::new(&[("..1/realm.yaml", REALM), ("..1/a.yaml", &partner("a.example"))]);
    symlink("..1", folder.path("..data")).unwrap();
    symlink("..data/realm.yaml", folder.path("realm.yaml")).unwrap();
    symlink("..data/a.yaml", folder.path("a.yaml")).unwrap();
    let former = folder.load();
    let mut changes = watch_from(&folder.options, &former);
    // Twice, since the watch has to follow to the new folder.
    for (turn, domain) in ["b.example", "c.example"].into_iter().enumerate() {
        let target = format!("..{}", turn + 2);
        folder.write(&format!("{target}/realm.yaml"), REALM);
        folder.write(&format!("{target}/a.yaml"), &partner(domain));
        symlink(&target, folder.path("..data_tmp")).unwrap();
        fs::rename(folder.path("..data_tmp"), folder.path("..data")).unwrap();
        assert!(changed(&mut changes).await);
        // The swap itself may come as a second change, when the new folder was written slowly.
        while !knows(&load(&folder.options, None).unwrap(), domain) {
            assert!(changed(&mut changes).await);
        }
        fs::remove_dir_all(folder.path(&format!("..{}", turn + 1))).unwrap();
        while !is_quiet(&mut changes).await {}
    }
}

// K-89
#[tokio::test]
async fn a_swap_of_the_folder_itself_is_taken() {
    let mut folder = Folder::new(&[("realm.yaml", REALM)]);
    let second = folder.dir.path().join("second");
    fs::create_dir(&second).unwrap();
    fs::write(second.join("realm.yaml"), format!("{REALM}---\n{}", partner("b.example"))).unwrap();
    let current = folder.dir.path().join("current");
    symlink("manifests", &current).unwrap();
    folder.options.dir = current.clone();
    let former = folder.load();
    let mut changes = watch_from(&folder.options, &former);
    symlink("second", folder.dir.path().join("next")).unwrap();
    fs::rename(folder.dir.path().join("next"), &current).unwrap();
    assert!(changed(&mut changes).await);
    assert!(knows(&folder.load(), "b.example"));
}

#[tokio::test]
async fn a_change_between_load_and_watch_is_not_missed() {
    let folder = Folder::new(&[("realm.yaml", REALM)]);
    let former = folder.load();
    folder.write("a.yaml", &partner("a.example"));
    let mut changes = watch_from(&folder.options, &former);
    assert!(changed(&mut changes).await);
}

#[tokio::test]
async fn secrets_are_watched_and_files_of_others_are_not() {
    let mut folder = Folder::new(&[("realm.yaml", REALM)]);
    let secrets = folder.dir.path().join("secrets");
    fs::create_dir_all(secrets.join("edge-tls")).unwrap();
    folder.options.secrets = Some(secrets.clone());
    let mut changes = watch_now(&folder.options);
    fs::write(folder.dir.path().join("beside.yaml"), "x").unwrap();
    folder.write(".realm.yaml.swp", "x");
    assert!(is_quiet(&mut changes).await);
    fs::write(secrets.join("edge-tls/tls.crt"), "x").unwrap();
    assert!(changed(&mut changes).await);
}

#[test]
fn a_writer_whose_close_was_never_told_is_given_up() {
    let folder = Folder::new(&[("realm.yaml", REALM)]);
    let (sender, events) = mpsc::channel();
    let mut watch = Watch {
        roots: Roots::of(&folder.options),
        options: folder.options.clone(),
        known: None,
        sender,
        events,
        kernel: None,
        writers: BTreeMap::new(),
        pending: None,
    };
    let path = folder.path("realm.yaml");
    let written = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
    watch.take(Ok(Event::new(written).add_path(path)));
    let now = Instant::now();
    watch.forget_lost_writers(now + CREATED_QUIET);
    assert_eq!(watch.writers.len(), 1);
    watch.forget_lost_writers(now + WRITER_LOST);
    assert!(watch.writers.is_empty());
    assert!(watch.due().is_some_and(|due| due <= now + LONGEST_BURST));
}
