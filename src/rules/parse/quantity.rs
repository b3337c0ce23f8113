//! Durations and sizes as people write them: `90s`, `1.5h`, `64MiB`.

use std::time::Duration;

use super::node::shown;
use crate::model::script::LIMIT_MAX;

/// Longest limit that can be asked for, in seconds.
pub(crate) const DURATION_SECS_MAX: u64 = LIMIT_MAX.as_secs();

/// Largest size that can be asked for, in bytes: 1 TiB.
pub(crate) const SIZE_BYTES_MAX: u64 = 1 << 40;

/// Largest count that can be asked for.
pub(crate) const COUNT_MAX: u32 = 1_000_000;

/// Why a text is no duration or no size; reads on after the name of what was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuantityError {
    /// It is not a number with one of the units.
    #[error("cannot be `{text}`, write {examples}")]
    Shape {
        /// What was given.
        text: String,
        /// How it is done.
        examples: &'static str,
    },
    /// It is zero or less.
    #[error("cannot be `{0}`, it must be more than zero")]
    NotPositive(String),
    /// It is less than what works.
    #[error("cannot be `{text}`, the least is {least}")]
    TooSmall {
        /// What was given.
        text: String,
        /// What works.
        least: u64,
    },
    /// It is over the limit.
    #[error("cannot be `{text}`, the limit is {limit}")]
    TooLarge {
        /// What was given.
        text: String,
        /// The limit.
        limit: &'static str,
    },
}

/// What a number with a unit may be.
#[derive(Debug)]
pub(crate) struct Quantity {
    /// Units, each with how many of the smallest it is; an empty one is what a whole number alone is in.
    pub(crate) units: &'static [(&'static str, u128)],
    /// The smallest whole number alone; with a unit, what is more than nothing may be less.
    pub(crate) whole_min: u64,
    /// The largest whole number alone; with a unit, what is more than that is too large as well.
    pub(crate) whole_max: u64,
    /// The same for people.
    limit: &'static str,
    /// How it is done.
    examples: &'static str,
}

/// A duration, in nanoseconds: a decimal number and `ms`, `s`, `m` or `h`; a whole number alone is seconds.
pub(crate) const DURATION: Quantity = Quantity {
    units: &[
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
        ("", 1_000_000_000),
    ],
    whole_min: 1,
    whole_max: DURATION_SECS_MAX,
    limit: "10000000 s",
    examples: "a number and a unit, as in `90s`, `15m`, `1.5h` or `500ms`",
};

/// A size, in bytes: a decimal number and `B`, `kB`, `MB`, `GB` (of 1000) or `KiB`, `MiB`, `GiB` (of 1024); a whole number
/// alone is bytes.
pub(crate) const SIZE: Quantity = Quantity {
    units: &[
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("B", 1),
        ("", 1),
    ],
    whole_min: 1,
    whole_max: SIZE_BYTES_MAX,
    limit: "1 TiB",
    examples: "a number and a unit, as in `64MiB`, `500kB` or a number of bytes",
};

/// A count: a whole number, `whole_min` or more.
pub(crate) const fn count_from(whole_min: u64) -> Quantity {
    Quantity {
        units: &[("", 1)],
        whole_min,
        whole_max: COUNT_MAX as u64,
        limit: "1000000",
        examples: "a whole number, as in `500`",
    }
}

/// Reads a count as [`count_from`] has it.
///
/// # Errors
/// If it has another shape, is less than it may be, or is over 1,000,000.
pub(crate) fn count(quantity: &Quantity, text: &str) -> Result<u32, QuantityError> {
    Ok(u32::try_from(quantity.read(text)?).unwrap_or(COUNT_MAX))
}

/// Reads a [`DURATION`].
///
/// # Errors
/// If it has another shape, is not more than zero, or is over 10,000,000 s.
pub(crate) fn duration(text: &str) -> Result<Duration, QuantityError> {
    let nanos = DURATION.read(text)?;
    let secs = u64::try_from(nanos / 1_000_000_000).unwrap_or(DURATION_SECS_MAX);
    let subsec = u32::try_from(nanos % 1_000_000_000).unwrap_or(0);
    Ok(Duration::new(secs, subsec))
}

/// Reads a [`SIZE`].
///
/// # Errors
/// If it has another shape, is not at least one byte, or is over 1 TiB.
pub(crate) fn size_bytes(text: &str) -> Result<u64, QuantityError> {
    Ok(u64::try_from(SIZE.read(text)?).unwrap_or(SIZE_BYTES_MAX))
}

/// More digits than any allowed quantity has; a longer number is too large or too exact.
const DIGITS_MAX: usize = 18;

impl Quantity {
    fn scale(&self, unit: &str) -> Option<u128> {
        self.units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale)
    }

    fn read(&self, text: &str) -> Result<u128, QuantityError> {
        let shape = || QuantityError::Shape { text: shown(text), examples: self.examples };
        let trimmed = text.trim();
        if let Some(rest) = trimmed.strip_prefix('-')
            && rest.starts_with(|c: char| c.is_ascii_digit())
        {
            return Err(QuantityError::NotPositive(shown(text)));
        }
        let number_end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(number_end);
        let scale = self.scale(unit.trim_start()).ok_or_else(shape)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if whole.is_empty()
            || fraction.is_empty()
            || fraction.contains('.')
            || (unit.is_empty() && number.contains('.'))
        {
            return Err(shape());
        }
        if fraction.len() > DIGITS_MAX {
            return Err(shape());
        }
        let too_large = || QuantityError::TooLarge { text: shown(text), limit: self.limit };
        if whole.trim_start_matches('0').len() > DIGITS_MAX {
            return Err(too_large());
        }
        let whole: u128 = whole.parse().map_err(|_| shape())?;
        let parts: u128 = fraction.parse().map_err(|_| shape())?;
        let digits = u32::try_from(fraction.len()).map_err(|_| shape())?;
        let max = u128::from(self.whole_max) * self.scale("").unwrap_or(1);
        match whole * scale + parts * scale / 10u128.pow(digits) {
            0 => Err(QuantityError::NotPositive(shown(text))),
            value if unit.is_empty() && value < u128::from(self.whole_min) * self.scale("").unwrap_or(1) => {
                Err(QuantityError::TooSmall { text: shown(text), least: self.whole_min })
            }
            value if value > max => Err(too_large()),
            value => Ok(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, millis) in [
            ("90s", 90_000),
            ("15m", 900_000),
            ("1.5h", 5_400_000),
            ("500ms", 500),
            ("900", 900_000),
            ("0.001s", 1),
            (" 2 s ", 2_000),
            ("10000000", 10_000_000_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_by_reason() {
        for text in
            ["", "s", "1.5", "1 day", "5d", "1,5h", "1.h", ".5h", "1.2.3s", "1e3s", "+5s", "٣s", "5S", "--5s", "-s"]
        {
            assert!(matches!(duration(text), Err(QuantityError::Shape { .. })), "{text}");
        }
        for text in ["0", "0s", "-5", "-1.5h", "0.0000000001s", "0h"] {
            assert!(matches!(duration(text), Err(QuantityError::NotPositive(_))), "{text}");
        }
        for text in
            ["10000001", "1000000000", "1000000000s", "99999999999999999999999999999999999999999h", "10000000.001s"]
        {
            let error = duration(text).unwrap_err();
            assert!(error.to_string().ends_with("the limit is 10000000 s"), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_unit() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("1GiB", 1 << 30),
            ("500kB", 500_000),
            ("7", 7),
            ("7B", 7),
            ("1.5KiB", 1536),
            ("2 MB", 2_000_000),
        ] {
            assert_eq!(size_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "64M", "1.5", "64mib", "x"] {
            assert!(matches!(size_bytes(text), Err(QuantityError::Shape { .. })), "{text}");
        }
        assert!(matches!(size_bytes("0"), Err(QuantityError::NotPositive(_))));
        assert!(matches!(size_bytes("0.1B"), Err(QuantityError::NotPositive(_))));
        assert!(matches!(size_bytes("2000GiB"), Err(QuantityError::TooLarge { .. })));
    }
}
