//! Continuing a log: the number that comes next, and a clean end to write behind.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::file;
use crate::read;

/// A file ready to be appended to.
pub(crate) struct Opened {
    pub(crate) file: File,
    /// Its length.
    pub(crate) len: u64,
    /// Number of the first record in it, or of the next one if it is empty.
    pub(crate) first_seq: u64,
    /// Number of the next record.
    pub(crate) next_seq: u64,
    /// What had to be mended, in words.
    pub(crate) mended: Option<String>,
}

/// Longest line that is taken for a record; beyond it the end of the file is damaged.
const MAX_LINE: u64 = 256 * 1024 * 1024;

/// Opens or creates the file. A last line without its newline is what a kill or a loss of power leaves in the middle
/// of a write; its statement was never forwarded, so it is cut off. Where the last whole line is not a record, the file
/// is set aside untouched and a new one begun. A file that does not begin with a record is not an audit log: an error.
pub(crate) fn open(path: &Path) -> io::Result<Opened> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = file::open(path)?;
    file::refuse_foreign(&file)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Opened { file, len: 0, first_seq: 1, next_seq: 1, mended: None });
    }
    let end = behind_newline(&file, metadata.len())?;
    let torn = metadata.len() - end;
    let mended = (torn > 0).then(|| format!("the torn last line of {torn} bytes was cut off"));
    if end == 0 {
        cut(&file, torn, 0)?;
        let next_seq = last_of_rotated(path)?.map_or(1, |seq| seq + 1);
        return Ok(Opened { file, len: 0, first_seq: next_seq, next_seq, mended });
    }
    match last_seq(&file, end)? {
        Some(seq) => {
            cut(&file, torn, end)?;
            let first_seq = first_seq(path)?.unwrap_or(seq);
            Ok(Opened { file, len: end, first_seq, next_seq: seq + 1, mended })
        }
        None => set_aside(path),
    }
}

fn cut(file: &File, torn: u64, end: u64) -> io::Result<()> {
    if torn > 0 { file.set_len(end) } else { Ok(()) }
}

/// Number of the record that ends at `end` (behind its newline).
fn last_seq(file: &File, end: u64) -> io::Result<Option<u64>> {
    let start = behind_newline(file, end - 1)?;
    if end - start > MAX_LINE {
        return Ok(None);
    }
    let mut line = vec![0; (end - 1 - start) as usize];
    file.read_exact_at(&mut line, start)?;
    Ok(read::seq(&line))
}

/// The offset behind the last newline before `end`, 0 if there is none.
fn behind_newline(file: &File, end: u64) -> io::Result<u64> {
    let mut chunk = vec![0; 64 * 1024];
    let mut end = end;
    while end > 0 {
        let start = end.saturating_sub(chunk.len() as u64);
        let window = &mut chunk[..(end - start) as usize];
        file.read_exact_at(window, start)?;
        if let Some(at) = window.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn first_seq(path: &Path) -> io::Result<Option<u64>> {
    let mut line = Vec::new();
    BufReader::new(File::open(path)?).read_until(b'\n', &mut line)?;
    Ok(read::seq(&line))
}

/// Number of the last record in the youngest file that was set aside by rotation.
fn last_of_rotated(path: &Path) -> io::Result<Option<u64>> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut youngest = None;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|entry| number_of(entry, name));
        youngest = youngest.max(number.map(|number| (number, entry.path())));
    }
    let Some((first, path)) = youngest else { return Ok(None) };
    let last = last_readable(&path)?;
    Ok(Some(last.unwrap_or(first)))
}

fn number_of(entry: &str, name: &str) -> Option<u64> {
    let digits = entry.strip_prefix(name)?.strip_prefix('.')?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// The highest number of all lines that can be read.
fn last_readable(path: &Path) -> io::Result<Option<u64>> {
    let mut last = None;
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        last = last.max(read::seq(&line?));
    }
    Ok(last)
}

fn set_aside(path: &Path) -> io::Result<Opened> {
    let last = last_readable(path)?.max(last_of_rotated(path)?);
    let aside = free_name(path)?;
    fs::rename(path, &aside)?;
    let next_seq = last.map_or(1, |seq| seq + 1);
    let mended = format!("the end of the file was damaged; the file was set aside as {}", aside.display());
    Ok(Opened { file: file::open(path)?, len: 0, first_seq: next_seq, next_seq, mended: Some(mended) })
}

fn free_name(path: &Path) -> io::Result<PathBuf> {
    let mut number = 1;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        let name = PathBuf::from(name);
        if !name.try_exists()? {
            return Ok(name);
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tempfile::TempDir;

    fn opened(content: &[u8]) -> (TempDir, PathBuf, Opened) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("audit.jsonl");
        fs::write(&path, content).unwrap();
        let opened = open(&path).unwrap();
        (folder, path, opened)
    }

    #[test]
    fn cut_at_every_byte_the_file_goes_on_behind_the_last_whole_line() {
        let lines = b"{\"seq\":41}\n{\"seq\":42}\n";
        for end in 0..=lines.len() {
            let (_folder, path, opened) = opened(&lines[..end]);
            let (whole, next) = match end {
                0..11 => (0, 1),
                11..22 => (11, 42),
                _ => (22, 43),
            };
            assert_eq!((opened.len, opened.next_seq), (whole, next), "cut at {end}");
            assert_eq!(fs::read(&path).unwrap(), &lines[..whole as usize]);
            assert_eq!(opened.mended.is_some(), end as u64 != whole);
        }
    }

    #[test]
    fn long_lines_are_found_across_chunks() {
        let line = format!("{{\"seq\":7,\"x\":\"{}\"}}\n", "y".repeat(200_000));
        let (_folder, _path, opened) = opened(line.as_bytes());
        assert_eq!(opened.next_seq, 8);
        assert_eq!(opened.first_seq, 7);
    }

    #[test]
    fn a_damaged_end_is_set_aside_whole() {
        let content = b"{\"seq\":1}\n{\"seq\":2}\n\0\0\0\0\n";
        let (_folder, path, opened) = opened(content);
        assert_eq!((opened.len, opened.next_seq), (0, 3));
        let aside = path.with_file_name("audit.jsonl.damaged-1");
        assert_eq!(fs::read(aside).unwrap(), content);
    }

    #[test]
    fn what_is_no_audit_log_is_left_as_it_is() {
        let key = "6f1c2a3b4d5e6f708192a3b4c5d6e7f8";
        for content in ["[proxy]\ndatabase = \"ehr\"\n", key, "{\"sequence\":1}\n", "\n", "\0\0\0\n", "{\"sec"] {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join("pgward.toml");
            fs::write(&path, content).unwrap();
            let refused = open(&path).err().unwrap().to_string();
            assert!(refused.contains("not an audit log"), "{refused}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was set aside");
        }
    }

    #[test]
    fn an_empty_file_continues_the_rotated_one() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.jsonl");
        fs::write(file::rotated(&path, 1), "{\"seq\":1}\n{\"seq\":2}\n").unwrap();
        fs::write(file::rotated(&path, 3), "{\"seq\":3}\n").unwrap();
        fs::write(folder.path().join("a.jsonl.bak"), "{\"seq\":99}\n").unwrap();
        assert_eq!(open(&path).unwrap().next_seq, 4);
    }
}
