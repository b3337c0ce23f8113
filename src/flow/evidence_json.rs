//! Snapshots and changes as JSON text: `snapshots/SUITE/{before,after,restored}.json` and `results/SUITE/changes.json`.
//!
//! Both are one object with one entry or change a line, in the order of paths; the same value always gives the same bytes.
//!
//! ```json
//! {"schema":1,"entries":[
//! {"path":"/usr/bin/ls","type":"file","mode":"0755","uid":0,"gid":0,"nlink":1,"mtime_ns":1700000000000000000,"size_bytes":3,"sha256":"ba78…"}
//! ]}
//! {"schema":1,"changes":[
//! {"path":"/usr/bin/ls","change":"modified","drift":true,"type":"file","differences":[{"field":"mode","from":"0755","to":"4755"}]}
//! ]}
//! ```
//!
//! | key of an entry | of | meaning |
//! |---|---|---|
//! | `path` | all | the path |
//! | `type` | all | `absent`, `file`, `symlink`, `dir`, `fifo`, `socket`, `char-device`, `block-device`, `unreadable` |
//! | `mode` | all that exist | four octal digits: setuid, setgid and sticky first |
//! | `uid`, `gid`, `nlink` | all that exist | owner, group, hard links |
//! | `mtime_ns` | all that exist | last change of the content in ns since 1970, an integer that may need more than 64 bits |
//! | `size_bytes`, `sha256` | file | length, and hash of the content; `content_errno` instead of a hash says why there is none |
//! | `target` | symlink | its text |
//! | `device` | devices | `major:minor` |
//! | `listing` | dir | absent if everything below was looked at, else `other-file-system`, or `unreadable` with `listing_errno` |
//! | `errno` | unreadable | why |
//! | `xattrs` | all that have some | list of `name` and one of `value_hex`, `size_bytes` with `sha256` (a long value), `errno`; an empty name stands for the list itself |
//!
//! A change has `change`: `added` (with the entry `to`), `removed` (`from`), `replaced` (both) or `modified` (`type` and
//! `differences`, each a `field` named as above with `from` and `to`; a value that does not exist is `null`), and `drift`.
//!
//! Where a path, target or name is not UTF-8, wrong bytes are U+FFFD in it, and `path_hex` (`target_hex`, `name_hex`) beside
//! it has all bytes.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::Serialize;
use serde::ser::{Error as _, Serializer};

use crate::model::snapshot::{
    Change, ChangeKind, Content, Difference, Entry, EntryType, FromTo, Listing, Meta, Snapshot, SpecialKind, Timestamp,
    XattrValue,
};
use crate::model::suite::PresenceOrigin;
use crate::rules::presence::PresenceReport;
use crate::rules::summary::SCHEMA;

/// Returns the text of a snapshot.
///
/// # Errors
/// None that is known: values of these types always have a text.
pub(crate) fn snapshot_json(snapshot: &Snapshot) -> serde_json::Result<Vec<u8>> {
    lines("entries", snapshot.iter(), |text, (path, entry)| {
        put_name(text, b"{\"path\":", b",\"path_hex\":", path.as_os_str())?;
        text.push(b',');
        put_entry(text, entry)
    })
}

/// Returns the text of what changed between two snapshots.
///
/// # Errors
/// None that is known: values of these types always have a text.
pub(crate) fn changes_json(changes: &[Change]) -> serde_json::Result<Vec<u8>> {
    lines("changes", changes.iter(), put_change)
}

/// Returns the text of `presence.json`: the claim, where it comes from, whether the product's log is whole, and every applet.
///
/// # Errors
/// None that is known.
pub(crate) fn presence_json(report: &PresenceReport, origin: PresenceOrigin) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Report<'a> {
        schema: u32,
        claim: &'static str,
        origin: &'static str,
        product_log: &'static str,
        ok: bool,
        applets: Vec<Applet<'a>>,
    }
    #[derive(Serialize)]
    struct Applet<'a> {
        applet: &'a str,
        target: Cow<'a, str>,
        found: Option<&'static str>,
        provider: Option<Cow<'a, str>>,
        preserved: bool,
        warned: Option<bool>,
        ok: bool,
    }
    let applets = report.applets.iter().map(|row| Applet {
        applet: &row.applet,
        target: row.target.to_string_lossy(),
        found: row.found.map(EntryType::as_str),
        provider: row.provider.as_deref().map(Path::to_string_lossy),
        preserved: row.is_preserved,
        warned: row.warned,
        ok: row.is_ok,
    });
    serde_json::to_vec_pretty(&Report {
        schema: SCHEMA,
        claim: report.claim.as_str(),
        origin: origin.as_str(),
        product_log: report.log.as_str(),
        ok: report.applets.iter().all(|applet| applet.is_ok),
        applets: applets.collect(),
    })
}

/// Most lines are shorter; so the text is rarely moved while it grows.
const LINE_BYTES: usize = 256;

fn lines<T>(
    key: &str,
    values: impl ExactSizeIterator<Item = T>,
    put: impl Fn(&mut Vec<u8>, T) -> serde_json::Result<()>,
) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(64 + values.len() * LINE_BYTES);
    text.extend_from_slice(b"{\"schema\":1,\"");
    text.extend_from_slice(key.as_bytes());
    text.extend_from_slice(b"\":[");
    for (i, value) in values.enumerate() {
        text.extend_from_slice(if i == 0 { b"\n" } else { b",\n" });
        put(&mut text, value)?;
    }
    text.extend_from_slice(b"\n]}\n");
    Ok(text)
}

/// Writes the keys of an entry from `type` on, and the closing brace. By hand: there are three snapshots of every suite, and
/// derived code takes twice as long, most of it to look for characters to escape in keys and digits.
fn put_entry(text: &mut Vec<u8>, entry: &Entry) -> serde_json::Result<()> {
    text.extend_from_slice(b"\"type\":\"");
    text.extend_from_slice(entry.entry_type().as_str().as_bytes());
    text.push(b'"');
    if let Some(meta) = entry.meta() {
        put_meta(text, meta);
    }
    match entry {
        Entry::Absent => {}
        Entry::File { meta: _, size_bytes, content } => {
            put_number(text, b",\"size_bytes\":", *size_bytes);
            match content {
                Content::Sha256(sha256) => {
                    text.extend_from_slice(b",\"sha256\":\"");
                    text.extend_from_slice(hash_digits(sha256).as_flattened());
                    text.push(b'"');
                }
                Content::Unreadable { errno } => put_errno(text, b",\"content_errno\":", *errno),
            }
        }
        Entry::Symlink { meta: _, target } => {
            put_name(text, b",\"target\":", b",\"target_hex\":", target.as_os_str())?;
        }
        Entry::Dir { meta: _, listing } => match listing {
            Listing::Complete => {}
            Listing::OtherFileSystem => text.extend_from_slice(b",\"listing\":\"other-file-system\""),
            Listing::Unreadable { errno } => {
                put_errno(text, b",\"listing\":\"unreadable\",\"listing_errno\":", *errno);
            }
        },
        Entry::Special { meta: _, kind } => match kind {
            SpecialKind::Fifo | SpecialKind::Socket => {}
            SpecialKind::CharDevice(number) | SpecialKind::BlockDevice(number) => {
                put_number(text, b",\"device\":\"", number.major.into());
                put_number(text, b":", number.minor.into());
                text.push(b'"');
            }
        },
        Entry::Unreadable { errno } => put_errno(text, b",\"errno\":", *errno),
    }
    if let Some(meta) = entry.meta().filter(|meta| !meta.xattrs.is_empty()) {
        text.extend_from_slice(b",\"xattrs\":");
        let xattrs: Vec<_> = meta.xattrs.iter().map(WireXattr::new).collect();
        serde_json::to_writer(&mut *text, &xattrs)?;
    }
    text.push(b'}');
    Ok(())
}

fn put_meta(text: &mut Vec<u8>, meta: &Meta) {
    text.extend_from_slice(b",\"mode\":\"");
    text.extend_from_slice(&mode_digits(meta.mode));
    put_number(text, b"\",\"uid\":", meta.uid.into());
    put_number(text, b",\"gid\":", meta.gid.into());
    put_number(text, b",\"nlink\":", meta.nlink.into());
    let nanos = meta.mtime.as_nanos();
    match u64::try_from(nanos) {
        Ok(nanos) => put_number(text, b",\"mtime_ns\":", nanos),
        Err(_) => text.extend_from_slice(format!(",\"mtime_ns\":{nanos}").as_bytes()),
    }
}

fn put_change(text: &mut Vec<u8>, change: &Change) -> serde_json::Result<()> {
    put_name(text, b"{\"path\":", b",\"path_hex\":", change.path.as_os_str())?;
    let word = match &change.kind {
        ChangeKind::Added(_) => "added",
        ChangeKind::Removed(_) => "removed",
        ChangeKind::Replaced { .. } => "replaced",
        ChangeKind::Modified { .. } => "modified",
    };
    text.extend_from_slice(format!(",\"change\":\"{word}\",\"drift\":{}", change.is_drift()).as_bytes());
    let (from, to) = match &change.kind {
        ChangeKind::Added(to) => (None, Some(to)),
        ChangeKind::Removed(from) => (Some(from), None),
        ChangeKind::Replaced { from, to } => (Some(from), Some(to)),
        ChangeKind::Modified { entry_type, differences } => {
            text.extend_from_slice(format!(",\"type\":\"{}\",\"differences\":", entry_type.as_str()).as_bytes());
            let differences: Vec<_> = differences.iter().map(WireDifference::new).collect();
            serde_json::to_writer(&mut *text, &differences)?;
            (None, None)
        }
    };
    for (key, entry) in [("from", from), ("to", to)] {
        if let Some(entry) = entry {
            text.extend_from_slice(format!(",\"{key}\":{{").as_bytes());
            put_entry(text, entry)?;
        }
    }
    text.push(b'}');
    Ok(())
}

/// Writes a name behind `key`, and if it is not UTF-8 all its bytes behind `hex_key`.
fn put_name(text: &mut Vec<u8>, key: &[u8], hex_key: &[u8], name: &OsStr) -> serde_json::Result<()> {
    text.extend_from_slice(key);
    let bytes = name.as_bytes();
    if bytes.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        text.push(b'"');
        text.extend_from_slice(bytes);
        text.push(b'"');
        return Ok(());
    }
    let (name, hex) = text_of(name);
    serde_json::to_writer(&mut *text, &name)?;
    if let Some(hex) = hex {
        text.extend_from_slice(hex_key);
        serde_json::to_writer(&mut *text, &hex)?;
    }
    Ok(())
}

fn put_number(text: &mut Vec<u8>, key: &[u8], mut number: u64) {
    text.extend_from_slice(key);
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        // A remainder of 10 is one digit.
        *digit = HEX_DIGITS[usize::from((number % 10).to_le_bytes()[0])];
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(digits.get(start..).unwrap_or_default());
}

fn put_errno(text: &mut Vec<u8>, key: &[u8], errno: i32) {
    text.extend_from_slice(key);
    text.extend_from_slice(errno.to_string().as_bytes());
}

/// Text, and all bytes if it is not all of them.
fn text_of(name: &OsStr) -> (Cow<'_, str>, Option<Hex<'_>>) {
    match name.to_str() {
        Some(text) => (Cow::Borrowed(text), None),
        None => (name.to_string_lossy(), Some(Hex(name.as_bytes()))),
    }
}

#[derive(Serialize)]
struct WireXattr<'a> {
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<Hex<'a>>,
    #[serde(flatten)]
    value: WireXattrValue<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WireXattrValue<'a> {
    Bytes { value_hex: Hex<'a> },
    Digest { size_bytes: u64, sha256: Hash<'a> },
    Unreadable { errno: i32 },
}

impl<'a> WireXattrValue<'a> {
    fn new(value: &'a XattrValue) -> Self {
        match value {
            XattrValue::Bytes(bytes) => Self::Bytes { value_hex: Hex(bytes) },
            XattrValue::Digest { size_bytes, sha256 } => Self::Digest { size_bytes: *size_bytes, sha256: Hash(sha256) },
            XattrValue::Unreadable { errno } => Self::Unreadable { errno: *errno },
        }
    }
}

impl<'a> WireXattr<'a> {
    fn new((name, value): (&'a Vec<u8>, &'a XattrValue)) -> Self {
        let (name, name_hex) = text_of(OsStr::from_bytes(name));
        Self { name, name_hex, value: WireXattrValue::new(value) }
    }
}

#[derive(Serialize)]
struct WireDifference<'a> {
    field: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<Hex<'a>>,
    from: WireValue<'a>,
    to: WireValue<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WireValue<'a> {
    None,
    Number(u64),
    Mode(Octal),
    Nanos(Nanos),
    Hash(Hash<'a>),
    Word(&'static str),
    Errno { errno: i32 },
    Text(Cow<'a, str>),
    Bytes { text: Cow<'a, str>, hex: Hex<'a> },
    Xattr(WireXattrValue<'a>),
}

impl<'a> WireDifference<'a> {
    fn new(difference: &'a Difference) -> Self {
        match difference {
            Difference::Mode(values) => Self::of("mode", values, |mode| WireValue::Mode(Octal(*mode))),
            Difference::Uid(values) => Self::of("uid", values, |id| WireValue::Number((*id).into())),
            Difference::Gid(values) => Self::of("gid", values, |id| WireValue::Number((*id).into())),
            Difference::Size(values) => Self::of("size_bytes", values, |size| WireValue::Number(*size)),
            Difference::Nlink(values) => Self::of("nlink", values, |links| WireValue::Number((*links).into())),
            Difference::Mtime(values) => Self::of("mtime_ns", values, |time| WireValue::Nanos(Nanos(*time))),
            Difference::Content(values) => Self::of("sha256", values, |content| match content {
                Content::Sha256(sha256) => WireValue::Hash(Hash(sha256)),
                Content::Unreadable { errno } => WireValue::Errno { errno: *errno },
            }),
            Difference::Target(values) => Self::of("target", values, |target| match text_of(target.as_os_str()) {
                (text, None) => WireValue::Text(text),
                (text, Some(hex)) => WireValue::Bytes { text, hex },
            }),
            Difference::Listing(values) => Self::of("listing", values, |listing| match listing {
                Listing::Complete => WireValue::Word("complete"),
                Listing::OtherFileSystem => WireValue::Word("other-file-system"),
                Listing::Unreadable { errno } => WireValue::Errno { errno: *errno },
            }),
            Difference::Xattr(name, values) => {
                let (name, name_hex) = text_of(OsStr::from_bytes(name));
                let wire = Self::of("xattr", values, |value| match value {
                    None => WireValue::None,
                    Some(value) => WireValue::Xattr(WireXattrValue::new(value)),
                });
                Self { name: Some(name), name_hex, ..wire }
            }
        }
    }

    fn of<T>(field: &'static str, values: &'a FromTo<T>, wire: impl Fn(&'a T) -> WireValue<'a>) -> Self {
        Self { field, name: None, name_hex: None, from: wire(&values.from), to: wire(&values.to) }
    }
}

/// Four octal digits.
struct Octal(u16);

impl Serialize for Octal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_ascii(&mode_digits(self.0), serializer)
    }
}

/// Nanoseconds since 1970.
struct Nanos(Timestamp);

impl Serialize for Nanos {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nanos = self.0.as_nanos();
        // Up to the year 2262 the faster way does.
        match i64::try_from(nanos) {
            Ok(nanos) => serializer.serialize_i64(nanos),
            Err(_) => serializer.serialize_i128(nanos),
        }
    }
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

fn mode_digits(mode: u16) -> [u8; 4] {
    [9, 6, 3, 0].map(|shift| HEX_DIGITS[usize::from((mode >> shift) & 7)])
}

fn hash_digits(sha256: &[u8; 32]) -> [[u8; 2]; 32] {
    sha256.map(hex_of)
}

fn hex_of(byte: u8) -> [u8; 2] {
    [HEX_DIGITS[usize::from(byte >> 4)], HEX_DIGITS[usize::from(byte & 15)]]
}

/// A hash in 64 hexadecimal digits.
struct Hash<'a>(&'a [u8; 32]);

impl Serialize for Hash<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_ascii(hash_digits(self.0).as_flattened(), serializer)
    }
}

/// Any bytes in hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits: Vec<u8> = self.0.iter().copied().flat_map(hex_of).collect();
        serialize_ascii(&digits, serializer)
    }
}

fn serialize_ascii<S: Serializer>(digits: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(std::str::from_utf8(digits).map_err(S::Error::custom)?)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;
    use std::path::PathBuf;

    use super::*;
    use crate::model::snapshot::{DeviceNumber, Xattrs};

    fn meta() -> Meta {
        let mtime = Timestamp { secs: 1_700_000_000, nanos: 5 };
        Meta { mode: 0o4755, uid: 1, gid: 2, mtime, nlink: 3, xattrs: Xattrs::new() }
    }

    fn text(path: &str, entry: Entry) -> String {
        let snapshot = Snapshot::from_iter([(PathBuf::from(path), entry)]);
        let text = String::from_utf8(snapshot_json(&snapshot).unwrap()).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        let entry = text.strip_prefix("{\"schema\":1,\"entries\":[\n").and_then(|text| text.strip_suffix("\n]}\n"));
        entry.unwrap().to_owned()
    }

    #[test]
    fn every_kind_of_entry_has_its_keys() {
        let common = r#""mode":"4755","uid":1,"gid":2,"nlink":3,"mtime_ns":1700000000000000005"#;
        let hash = "ab".repeat(32);
        let file = |content| Entry::File { meta: meta(), size_bytes: 9, content };
        let special = |kind| Entry::Special { meta: meta(), kind };
        let dir = |listing| Entry::Dir { meta: meta(), listing };
        let block = SpecialKind::BlockDevice(DeviceNumber { major: 8, minor: 1 });
        let table = [
            (Entry::Absent, r#""absent""#.to_owned()),
            (Entry::Unreadable { errno: 13 }, r#""unreadable","errno":13"#.to_owned()),
            (file(Content::Sha256([0xab; 32])), format!(r#""file",{common},"size_bytes":9,"sha256":"{hash}""#)),
            (file(Content::Unreadable { errno: 13 }), format!(r#""file",{common},"size_bytes":9,"content_errno":13"#)),
            (Entry::Symlink { meta: meta(), target: "x".into() }, format!(r#""symlink",{common},"target":"x""#)),
            (dir(Listing::Complete), format!(r#""dir",{common}"#)),
            (dir(Listing::OtherFileSystem), format!(r#""dir",{common},"listing":"other-file-system""#)),
            (
                dir(Listing::Unreadable { errno: 13 }),
                format!(r#""dir",{common},"listing":"unreadable","listing_errno":13"#),
            ),
            (special(SpecialKind::Fifo), format!(r#""fifo",{common}"#)),
            (special(block), format!(r#""block-device",{common},"device":"8:1""#)),
        ];
        for (entry, keys) in table {
            assert_eq!(text("/p", entry), format!(r#"{{"path":"/p","type":{keys}}}"#));
        }
    }

    #[test]
    fn names_that_are_no_text_are_kept_in_hex() {
        let path = PathBuf::from(OsString::from_vec(b"/\xff".to_vec()));
        let snapshot = Snapshot::from_iter([(path, Entry::Absent)]);
        let text = String::from_utf8(snapshot_json(&snapshot).unwrap()).unwrap();
        assert!(text.contains("{\"path\":\"/\u{fffd}\",\"path_hex\":\"2fff\",\"type\":\"absent\"}"), "{text}");
    }

    #[test]
    fn xattrs_have_their_values() {
        let xattrs = Xattrs::from([
            (b"a".to_vec(), XattrValue::Bytes(vec![0, 255])),
            (b"b".to_vec(), XattrValue::Unreadable { errno: 1 }),
            (b"c".to_vec(), XattrValue::Digest { size_bytes: 300, sha256: [0; 32] }),
        ]);
        let text = text("/p", Entry::Dir { meta: Meta { xattrs, ..meta() }, listing: Listing::Complete });
        let zeros = "0".repeat(64);
        let expected = format!(
            r#""xattrs":[{{"name":"a","value_hex":"00ff"}},{{"name":"b","errno":1}},{{"name":"c","size_bytes":300,"sha256":"{zeros}"}}]}}"#
        );
        assert!(text.ends_with(&expected), "{text}");
    }

    #[test]
    fn changes_have_what_differs() {
        let dir = |mode| Entry::Dir { meta: Meta { mode, ..meta() }, listing: Listing::Complete };
        let before = Snapshot::from_iter([("/a".into(), Entry::Absent), ("/b".into(), dir(0o755))]);
        let after = Snapshot::from_iter([("/a".into(), Entry::Unreadable { errno: 5 }), ("/b".into(), dir(0o1777))]);
        let text = String::from_utf8(changes_json(&before.changes_to(&after)).unwrap()).unwrap();
        let expected = r#"{"schema":1,"changes":[
{"path":"/a","change":"added","drift":true,"to":{"type":"unreadable","errno":5}},
{"path":"/b","change":"modified","drift":true,"type":"dir","differences":[{"field":"mode","from":"0755","to":"1777"}]}
]}
"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn every_difference_has_a_value_before_and_after() {
        let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
        let xattr = Some(XattrValue::Bytes(vec![1]));
        let table = [
            (Difference::Uid(FromTo { from: 1, to: 2 }), r#""field":"uid","from":1,"to":2"#),
            (
                Difference::Target(FromTo { from: path(b"a"), to: path(b"\xff") }),
                "\"field\":\"target\",\"from\":\"a\",\"to\":{\"text\":\"\u{fffd}\",\"hex\":\"ff\"}",
            ),
            (
                Difference::Xattr(b"user.x".to_vec(), FromTo { from: None, to: xattr }),
                r#""field":"xattr","name":"user.x","from":null,"to":{"value_hex":"01"}"#,
            ),
            (
                Difference::Listing(FromTo { from: Listing::Complete, to: Listing::Unreadable { errno: 13 } }),
                r#""field":"listing","from":"complete","to":{"errno":13}"#,
            ),
        ];
        for (difference, keys) in table {
            assert_eq!(serde_json::to_string(&WireDifference::new(&difference)).unwrap(), format!("{{{keys}}}"));
        }
    }
}
