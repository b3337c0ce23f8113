//! `manifest.sha256`: the hash of every file of the evidence, as sha256sum(1) writes and checks it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// The manifest's name in the proof folder.
pub(crate) const MANIFEST: &str = "manifest.sha256";

/// SHA-256 of a file's content.
pub(crate) type Sha256 = [u8; 32];

/// Every file below `./` is listed so: what stands between hash and name.
const BETWEEN: &[u8] = b"  ./";
/// What a line with an escape in it begins with.
const MARK: &[u8] = b"\\";
/// What cannot stand in a line as it is, and how it is written instead.
///
/// Source: sha256sum of GNU coreutils; the carriage return since version 9.
const ESCAPES: [(u8, u8); 3] = [(b'\\', b'\\'), (b'\n', b'n'), (b'\r', b'r')];

/// Returns the text of the manifest: a line for each file, in the order of the names' bytes.
pub(crate) fn text(files: &BTreeMap<OsString, Sha256>) -> Vec<u8> {
    files.iter().flat_map(|(path, sha256)| line(path, sha256)).collect()
}

fn line(path: &OsStr, sha256: &Sha256) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(path.len());
    for byte in path.as_bytes() {
        match ESCAPES.iter().find(|(plain, _)| plain == byte) {
            Some((_, letter)) => escaped.extend([b'\\', *letter]),
            None => escaped.push(*byte),
        }
    }
    let mark = if escaped.len() > path.len() { MARK } else { b"" };
    [mark, hex(sha256).as_bytes(), BETWEEN, &escaped, b"\n"].concat()
}

/// Returns the 64 hexadecimal digits of a hash.
pub(crate) fn hex(sha256: &Sha256) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    sha256.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// One line of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// From 1.
    pub(crate) number: usize,
    /// Below the proof folder.
    pub(crate) path: OsString,
    pub(crate) sha256: Sha256,
}

/// Why a line is none of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {number} {why}")]
pub(crate) struct LineError {
    pub(crate) number: usize,
    pub(crate) why: &'static str,
}

/// Returns every line of a manifest, in order. What `text` would not have written is an error: sha256sum takes capital digits,
/// another order and more, and then not every changed byte would be found.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = Result<Line, LineError>> {
    let mut last = OsString::new();
    text.split_inclusive(|byte| *byte == b'\n').zip(1..).map(move |(text, number)| {
        let error = |why| LineError { number, why };
        let (path, sha256) = parse(text).map_err(error)?;
        if path <= last {
            return Err(error("stands twice, or not in the order of names"));
        }
        last.clone_from(&path);
        Ok(Line { number, path, sha256 })
    })
}

fn parse(text: &[u8]) -> Result<(OsString, Sha256), &'static str> {
    const NO_HASH: &str = "does not begin with 64 hexadecimal digits";
    let text = text.strip_suffix(b"\n").ok_or("is cut off: it has no line end")?;
    let marked = text.strip_prefix(MARK);
    let (digits, rest) = marked.unwrap_or(text).split_at_checked(64).ok_or(NO_HASH)?;
    let sha256 = unhex(digits).ok_or(NO_HASH)?;
    let name = rest.strip_prefix(BETWEEN).ok_or("does not have two spaces and `./` behind the hash")?;
    let path = match marked {
        Some(_) => unescape(name).ok_or("has an escape that is none")?,
        None => name.to_vec(),
    };
    let path = OsString::from_vec(path);
    let is_as_written = line(&path, &sha256).strip_suffix(b"\n") == Some(text);
    is_as_written.then_some((path, sha256)).ok_or("is not escaped as it must be")
}

fn unhex(digits: &[u8]) -> Option<Sha256> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut sha256 = [0; 32];
    for (byte, pair) in sha256.iter_mut().zip(digits.as_chunks::<2>().0) {
        let [high, low] = pair.map(value);
        *byte = high? << 4 | low?;
    }
    Some(sha256)
}

fn unescape(name: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'\\' {
            plain.push(*byte);
            continue;
        }
        let letter = bytes.next()?;
        plain.push(ESCAPES.iter().find(|(_, escape)| escape == letter)?.0);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";

    fn hash() -> Sha256 {
        let mut sha256 = std::array::from_fn(|at| u8::try_from(at).unwrap());
        sha256[31] = 0xff;
        sha256
    }

    fn read(text: &str) -> Vec<Result<(String, Sha256), String>> {
        let shown = |line: Line| (line.path.into_string().unwrap(), line.sha256);
        lines(text.as_bytes()).map(|line| line.map(shown).map_err(|error| error.to_string())).collect()
    }

    #[test]
    fn lines_are_sorted_by_bytes_and_read_back() {
        let paths = ["logs/a/b", "logs/a.b", "run.json", "results/é x", "logs/new\nline", "logs/a\\b", "logs/\r"];
        let files: BTreeMap<_, _> = paths.map(|path| (OsString::from(path), hash())).into();
        let text = String::from_utf8(text(&files)).unwrap();
        let expected = [
            format!("\\{HASH}  ./logs/\\r\n"),
            format!("{HASH}  ./logs/a.b\n"),
            format!("{HASH}  ./logs/a/b\n"),
            format!("\\{HASH}  ./logs/a\\\\b\n"),
            format!("\\{HASH}  ./logs/new\\nline\n"),
            format!("{HASH}  ./results/é x\n"),
            format!("{HASH}  ./run.json\n"),
        ];
        assert_eq!(text, expected.concat());
        let read: BTreeMap<_, _> = lines(text.as_bytes()).map(Result::unwrap).map(|l| (l.path, l.sha256)).collect();
        assert_eq!(read, files);
    }

    #[test]
    fn names_need_not_be_text() {
        let files = BTreeMap::from([(OsString::from_vec(vec![b'a', 0xff, b'\\']), hash())]);
        let text = text(&files);
        assert_eq!(lines(&text).next().unwrap().unwrap().path, *files.keys().next().unwrap());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let fine = format!("{HASH}  ./b\n");
        let cases = [
            (format!("{HASH}  ./c"), "is cut off: it has no line end"),
            (format!("{}  ./c\n", HASH.to_uppercase()), "does not begin with 64 hexadecimal digits"),
            (format!("{}  ./c\n", &HASH[1..]), "does not begin with 64 hexadecimal digits"),
            ("\n".to_owned(), "does not begin with 64 hexadecimal digits"),
            (format!("{HASH} *./c\n"), "does not have two spaces and `./` behind the hash"),
            (format!("{HASH}  c\n"), "does not have two spaces and `./` behind the hash"),
            (format!("\\{HASH}  ./c\\x\n"), "has an escape that is none"),
            (format!("\\{HASH}  ./c\\\n"), "has an escape that is none"),
            (format!("\\{HASH}  ./c\n"), "is not escaped as it must be"),
            (format!("{HASH}  ./c\\n\n"), "is not escaped as it must be"),
            (format!("{HASH}  ./b\n"), "stands twice, or not in the order of names"),
            (format!("{HASH}  ./a\n"), "stands twice, or not in the order of names"),
        ];
        for (line, why) in cases {
            assert_eq!(read(&format!("{fine}{line}"))[1], Err(format!("line 2 {why}")), "{line}");
        }
        assert_eq!(read(""), []);
    }

    #[test]
    fn every_changed_bit_changes_what_is_read() {
        let files = BTreeMap::from(["a", "b\n", "c"].map(|path| (OsString::from(path), hash())));
        let text = text(&files);
        let read = |text: &[u8]| lines(text).collect::<Vec<_>>();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut changed = text.clone();
                changed[at] ^= 1 << bit;
                assert_ne!(read(&changed), read(&text), "bit {bit} of byte {at}");
            }
        }
    }
}
