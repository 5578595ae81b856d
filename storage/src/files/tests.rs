//! Tests of the file seam: short reads and writes, and the fault model of the faulty disk itself.

use meta::seams::Incarnation;

use super::faulty::{Faults, FaultyDisk};
use super::*;

/// A file that takes at most so many bytes, and counts what it was given at a time.
struct Stingy {
    bytes: parking_lot::Mutex<Vec<u8>>,
    most: usize,
}

impl SegmentFile for Stingy {
    fn length(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        assert!(parts.len() <= MAX_IOVECS);
        assert!(parts.iter().map(|part| part.len()).sum::<usize>() <= MAX_WRITE_BYTES);
        let mut bytes = self.bytes.lock();
        assert_eq!(bytes.len() as u64, position);
        let given: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let taken = given.len().min(self.most);
        bytes.extend_from_slice(&given[..taken]);
        Ok(taken)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let bytes = self.bytes.lock();
        let rest = &bytes[position as usize..];
        let read = rest.len().min(buffer.len()).min(self.most);
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }
}

#[test]
fn short_writes_and_reads_are_continued() {
    let mut parts: Vec<Bytes> = (0..3000usize).map(|n| Bytes::from(vec![n as u8; n % 7])).collect();
    parts.extend([100_000, 700_000, 3].map(|length| Bytes::from(vec![7; length])));
    for most in [500, 1000, 300_000, usize::MAX] {
        let file = Stingy { bytes: parking_lot::Mutex::default(), most };
        write_all_at(&file, &parts, 0).unwrap();
        assert_eq!(*file.bytes.lock(), parts.concat());
        let mut read = vec![0; 500];
        read_exact_at(&file, &mut read, 100).unwrap();
        assert_eq!(read, parts.concat()[100..600]);
    }
    let stuck = Stingy { bytes: parking_lot::Mutex::default(), most: 0 };
    assert_eq!(write_all_at(&stuck, &parts, 0).unwrap_err().kind(), io::ErrorKind::WriteZero);
    let error = read_exact_at(&stuck, &mut [0; 1], 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

fn exercise(files: &dyn SegmentFiles) {
    files.create_dir("a").unwrap();
    files.create_dir("a").unwrap();
    files.create_dir("a/b").unwrap();
    assert_eq!(files.open("a/b/f").map(drop).unwrap_err().kind(), io::ErrorKind::NotFound);
    let file = files.create_new("a/b/f").unwrap();
    assert_eq!(files.create_new("a/b/f").map(drop).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    let parts: Vec<Bytes> = (0..5000u32).map(|n| Bytes::from(n.to_be_bytes().to_vec())).collect();
    write_all_at(&*file, &parts, 0).unwrap();
    write_all_at(&*file, &[Bytes::from_static(b"end")], 20_000).unwrap();
    file.sync_data().unwrap();
    for dir in ["", "a", "a/b"] {
        files.sync_dir(dir).unwrap();
    }
    let read = files.open("a/b/f").unwrap();
    assert_eq!(read.length().unwrap(), 20_003);
    let mut bytes = vec![0; 20_003];
    read_exact_at(&*read, &mut bytes, 0).unwrap();
    assert_eq!(bytes, [&parts.concat()[..], b"end"].concat());
    assert!(read_exact_at(&*read, &mut bytes, 1).is_err());
    assert_eq!(files.sync_dir("c").unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn real_and_faulty_files_behave_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::lock(dir.path(), Incarnation(1), 0).unwrap();
    exercise(&FolderFiles::new(Arc::new(folder)));
    exercise(&*FaultyDisk::new(1).files());
    let short = FaultyDisk::new(2);
    short.set_faults(Faults { short_writes: true, ..Faults::default() });
    exercise(&*short.files());
}

fn disk_with_file(seed: u64) -> (FaultyDisk, Arc<dyn SegmentFiles>, Arc<dyn SegmentFile>) {
    let disk = FaultyDisk::new(seed);
    let files = disk.files();
    files.create_dir("d").unwrap();
    let file = files.create_new("d/f").unwrap();
    (disk, files, file)
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_nothing_else_for_sure() {
    let mut lost = 0;
    for seed in 0..50 {
        let (disk, files, file) = disk_with_file(seed);
        let bytes = |fill: u8| [Bytes::from(vec![fill; 4096])];
        write_all_at(&*file, &bytes(1), 0).unwrap();
        file.sync_data().unwrap();
        files.sync_dir("").unwrap();
        files.sync_dir("d").unwrap();
        write_all_at(&*file, &bytes(2), 4096).unwrap();
        disk.cut_power();
        assert!(file.sync_data().is_err() && files.open("d/f").is_err(), "handles from before");
        let content = disk.content("d/f").unwrap();
        assert_eq!(content[..4096], bytes(1)[0]);
        lost += usize::from(content[4096..] != bytes(2)[0]);
    }
    assert!(lost > 40, "{lost} of 50");
}

#[test]
fn a_power_cut_drops_files_whose_folder_was_not_synced() {
    for synced in [&[][..], &["d"], &[""]] {
        let (disk, files, file) = disk_with_file(1);
        file.sync_data().unwrap();
        for dir in synced {
            files.sync_dir(dir).unwrap();
        }
        disk.cut_power();
        assert_eq!(disk.content("d/f"), None, "{synced:?}");
    }
}

#[test]
fn a_failed_sync_loses_what_a_later_one_seems_to_save() {
    let (disk, files, file) = disk_with_file(1);
    files.sync_dir("").unwrap();
    files.sync_dir("d").unwrap();
    write_all_at(&*file, &[Bytes::from_static(b"lost")], 0).unwrap();
    disk.set_faults(Faults { syncs_before_failure: Some(0), ..Faults::default() });
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(disk.content("d/f").unwrap(), b"lost", "still readable");
    disk.cut_power();
    assert_eq!(disk.content("d/f").unwrap(), b"");
}
