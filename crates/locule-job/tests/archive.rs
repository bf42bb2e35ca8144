//! Archives there and back, and those that are refused.
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic like the tests")]

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use locule_job::{
    Limits, PackError, Packing, TreeError, UnpackError, pack_app, pack_file, pack_job, unpack, unpack_file,
};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

#[test]
fn an_app_comes_out_as_it_went_in() {
    let scratch = app();
    let archive = pack_app(&scratch.path().join("app")).unwrap();
    let target = scratch.path().join("out");
    let unpacked = unpack(&archive, &target, &Limits::default()).unwrap();
    assert_eq!((unpacked.entries, unpacked.bytes), (6, 5));
    assert_eq!(fs::read_to_string(target.join("config/a.json")).unwrap(), "{}");
    assert_eq!(fs::read_to_string(target.join("custom/deep/b.py")).unwrap(), "b=1");
    assert!(target.join("empty").is_dir(), "empty folders count: `custom` alone means custom code");
    assert_eq!(names(scratch.path()), ["app", "out"], "nothing else is left");
}

#[test]
fn the_same_folder_gives_the_same_bytes() {
    assert_eq!(pack_app(&app().path().join("app")).unwrap(), pack_app(&app().path().join("app")).unwrap());
}

#[test]
fn a_job_is_wrapped_in_a_folder_of_its_name() {
    let scratch = app();
    let archive = pack_job(&scratch.path().join("app")).unwrap();
    let mut zip = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
    // A stock server looks for the folders' own entries.
    for name in ["app/", "app/config/", "app/config/a.json", "app/empty/"] {
        zip.by_name(name).unwrap();
    }
}

#[test]
fn an_archive_on_disk_is_as_one_in_memory() {
    let scratch = app();
    let (folder, archive) = (scratch.path().join("app"), scratch.path().join("app.zip"));
    for packing in [Packing::Small, Packing::Fast] {
        pack_file(&folder, "wrapped", &archive, packing, 1_000).unwrap();
        let target = scratch.path().join(format!("{packing:?}"));
        let unpacked = unpack_file(&archive, &target, &Limits::default()).unwrap();
        assert_eq!((unpacked.entries, unpacked.bytes), (7, 5));
        assert_eq!(fs::read_to_string(target.join("wrapped/custom/deep/b.py")).unwrap(), "b=1");
        let twice = pack_file(&folder, "", &archive, packing, 1_000);
        assert!(matches!(twice, Err(PackError::Write { .. })), "nothing is overwritten");
        fs::remove_file(&archive).unwrap();
    }
    let large = pack_file(&folder, "", &archive, Packing::Fast, 4);
    assert!(matches!(large, Err(PackError::TooLarge { max_bytes: 4 })), "{large:?}");
    assert!(!archive.exists(), "nothing is left of it");
    let missing = unpack_file(&archive, &scratch.path().join("none"), &Limits::default());
    assert!(matches!(missing, Err(UnpackError::Read { .. })), "{missing:?}");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in [
        "../x",
        "a/../../x",
        "a/..",
        "..",
        "/etc/x",
        "//x",
        "a//x",
        "./x",
        "a/./x",
        "..\\x",
        "a\\x",
        "C:/x",
        "c:x",
        "\\\\host\\x",
        "a\0b",
        "a\nb",
        "",
        "/",
    ] {
        let error = refused(&zip_of(&[(name, b"x".as_slice())]));
        assert!(matches!(error, UnpackError::UnsafeName { .. }), "{name:?}: {error:?}");
    }
    let deep = "d/".repeat(33) + "x";
    assert!(matches!(refused(&zip_of(&[(&deep, b"x".as_slice())])), UnpackError::UnsafeName { .. }));
}

#[test]
fn an_unsafe_name_is_shown_escaped_and_shortened() {
    let name = format!("../\u{1b}[31m{}", "x".repeat(10_000));
    let text = refused(&zip_of(&[(&name, b"".as_slice())])).to_string();
    assert!(text.len() < 300 && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn links_and_devices_are_refused() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.add_symlink("passwd", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let link = zip.finish().unwrap().into_inner();
    assert!(matches!(refused(&link), UnpackError::NotPlain { name } if name == "passwd"));

    // A character device: the file type of the entry's mode is changed by hand in the central directory.
    let mut device = zip_of(&[("tty", b"".as_slice())]);
    let central = device.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    device[central + 40..central + 42].copy_from_slice(&0o020_644_u16.to_le_bytes());
    assert!(matches!(refused(&device), UnpackError::NotPlain { .. }));
}

#[test]
fn a_bomb_is_stopped_while_it_unpacks() {
    let scratch = tempfile::tempdir().unwrap();
    let zeros = vec![0; 4 << 20];
    let bomb = zip_of(&[("zeros", &zeros)]);
    assert!(bomb.len() < 8192);
    let target = scratch.path().join("out");
    let error = unpack(&bomb, &target, &Limits::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Bomb { max_ratio: 100 }), "{error:?}");
    assert!(names(scratch.path()).is_empty(), "nothing is left");
}

#[test]
fn a_bomb_that_lies_about_its_size_is_stopped_too() {
    let zeros = vec![0; 4 << 20];
    let mut bomb = zip_of(&[("zeros", &zeros)]);
    // The uncompressed size in both headers says 10.
    let central = bomb.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    for at in [22, central + 24] {
        bomb[at..at + 4].copy_from_slice(&10_u32.to_le_bytes());
    }
    refused(&bomb);
}

#[test]
fn more_bytes_than_allowed_are_refused() {
    let limits = |max| {
        let mut limits = Limits::default();
        limits.max_bytes = max;
        limits
    };
    let content: Vec<u8> = (0..2000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let archive = zip_of(&[("a", &content[..4000]), ("b", &content[4000..])]);
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("out");
    for max in [1, 100, 7999] {
        let error = unpack(&archive, &target, &limits(max)).unwrap_err();
        assert!(matches!(error, UnpackError::TooLarge { .. }), "{max}: {error:?}");
    }
    let enough = archive.len().max(8000) as u64;
    assert_eq!(unpack(&archive, &target, &limits(enough)).unwrap().bytes, 8000);
}

#[test]
fn more_entries_than_allowed_are_refused() {
    let files: Vec<(String, &[u8])> = (0..10_001).map(|i| (format!("f{i}"), b"".as_slice())).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (name.as_str(), *content)).collect();
    assert!(matches!(refused(&zip_of(&files)), UnpackError::TooManyEntries { .. }));
}

#[test]
fn entries_are_counted_before_any_memory_is_taken_for_them() {
    let archive = zip_of(&[("a", b"1".as_slice())]);
    let claiming = |count: u16| {
        let mut archive = archive.clone();
        let end = archive.len() - 22;
        archive[end + 8..end + 10].copy_from_slice(&count.to_le_bytes());
        archive[end + 10..end + 12].copy_from_slice(&count.to_le_bytes());
        archive
    };
    assert!(matches!(refused(&claiming(10_001)), UnpackError::TooManyEntries { .. }));
    // that many are counted elsewhere, with 64 bits
    assert!(matches!(refused(&claiming(u16::MAX)), UnpackError::Malformed(_)));
    // the directory is not where it is said to be, or something follows the end
    for at in [12, 16, 20] {
        let mut archive = archive.clone();
        let end = archive.len() - 22;
        archive[end + at] ^= 1;
        assert!(matches!(refused(&archive), UnpackError::Malformed(_)), "{at}");
    }
}

#[test]
fn two_entries_for_one_place_are_refused() {
    let archive = zip_of(&[("a", b"1".as_slice()), ("a/b", b"2")]);
    assert!(matches!(refused(&archive), UnpackError::Twice));

    let mut same = zip_of(&[("one", b"1".as_slice()), ("two", b"2")]);
    while let Some(at) = same.windows(3).position(|three| three == b"two") {
        same[at..at + 3].copy_from_slice(b"one");
    }
    assert!(matches!(refused(&same), UnpackError::Twice | UnpackError::Malformed(_)));
}

#[test]
fn a_target_that_exists_is_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("out"), "mine").unwrap();
    let archive = zip_of(&[("a", b"1".as_slice())]);
    let error = unpack(&archive, &scratch.path().join("out"), &Limits::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Occupied { .. }));
    assert_eq!(fs::read_to_string(scratch.path().join("out")).unwrap(), "mine");
}

#[test]
fn what_a_crash_left_behind_is_no_obstacle() {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir(scratch.path().join(".out.partial")).unwrap();
    fs::write(scratch.path().join(".out.partial/half"), "x").unwrap();
    unpack(&zip_of(&[("a", b"1".as_slice())]), &scratch.path().join("out"), &Limits::default()).unwrap();
    assert_eq!(names(&scratch.path().join("out")), ["a"]);
    assert_eq!(names(scratch.path()), ["out"]);
}

#[test]
fn no_damage_to_an_archive_makes_it_panic_or_leaves_anything() {
    let scratch = tempfile::tempdir().unwrap();
    let archive = zip_of(&[("config/a.json", b"{}".as_slice()), ("custom/b.py", b"b = 1")]);
    for at in 0..archive.len() {
        let mut damaged = archive.clone();
        damaged[at] ^= 0xff;
        let target = scratch.path().join("out");
        match unpack(&damaged, &target, &Limits::default()) {
            Ok(_) => fs::remove_dir_all(&target).unwrap(),
            Err(_) => assert!(names(scratch.path()).is_empty(), "byte {at}"),
        }
        assert!(
            unpack(&archive[..at], &scratch.path().join("out"), &Limits::default()).is_err(),
            "cut at {at}"
        );
    }
}

#[cfg(unix)]
#[test]
fn links_are_not_packed() {
    let scratch = app();
    std::os::unix::fs::symlink("/etc/passwd", scratch.path().join("app/config/link")).unwrap();
    let error = pack_app(&scratch.path().join("app")).unwrap_err();
    assert!(matches!(error, PackError::Tree(TreeError::Link { name }) if name == "config/link"));
}

fn refused(archive: &[u8]) -> UnpackError {
    let scratch = tempfile::tempdir().unwrap();
    let error = unpack(archive, &scratch.path().join("out"), &Limits::default()).unwrap_err();
    assert!(names(scratch.path()).is_empty(), "nothing is left");
    error
}

/// An archive with the names exactly as given.
fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, content) in files {
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn app() -> TempDir {
    let scratch = tempfile::tempdir().unwrap();
    let app = scratch.path().join("app");
    for folder in ["config", "custom/deep", "empty"] {
        fs::create_dir_all(app.join(folder)).unwrap();
    }
    fs::write(app.join("config/a.json"), "{}").unwrap();
    fs::write(app.join("custom/deep/b.py"), "b=1").unwrap();
    scratch
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
