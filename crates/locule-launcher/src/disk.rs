//! What a job takes up on disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What a file, or a folder with all that is in it, takes up on disk, in bytes. Links are not followed, and what cannot
/// be read counts for nothing. Blocking.
pub fn disk_usage(path: &Path) -> u64 {
    let (mut used, mut ahead) = (0_u64, vec![path.to_owned()]);
    while let Some(path) = ahead.pop() {
        let Ok(data) = fs::symlink_metadata(&path) else { continue };
        used = used.saturating_add(data.blocks().saturating_mul(512));
        if data.is_dir() {
            let within = fs::read_dir(path).into_iter().flatten();
            ahead.extend(within.filter_map(|entry| Some(entry.ok()?.path())));
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_of_all_that_lies_below_and_of_nothing_that_is_linked() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(folder.path().join("deep")).unwrap();
        let before = disk_usage(folder.path());
        let model = folder.path().join("deep/model");
        fs::write(&model, vec![7; 1 << 20]).unwrap();
        fs::File::open(&model).unwrap().sync_all().unwrap(); // some file systems find room for it only now
        fs::write(other.path().join("theirs"), vec![7; 1 << 20]).unwrap();
        std::os::unix::fs::symlink(other.path(), folder.path().join("link")).unwrap();
        let grown = disk_usage(folder.path()) - before;
        assert!((1 << 20..1 << 21).contains(&grown), "{grown}");
        assert_eq!(disk_usage(&folder.path().join("nothing")), 0);
    }
}
