//! Numbers of bytes as people read them. Decimal units, as BigQuery bills and as a policy is written. What programs read stays a plain number.

const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];

/// Bytes in their largest unit, rounded down to a tenth: `1.6 GB`. Where there is room for no more.
#[must_use]
pub fn short(bytes: u64) -> String {
    let Some(unit) = unit_of(bytes) else {
        return format!("{bytes} B");
    };
    let tenths = bytes / (unit.bytes / 10);
    format!("{}.{} {}", tenths / 10, tenths % 10, unit.name)
}

/// Bytes whole, and in a unit where that says it at a glance: `10 GB`, `999 bytes`, `1.6 GB (1 610 612 736 bytes)`. Two that differ read otherwise.
#[must_use]
pub fn whole(bytes: u64) -> String {
    let Some(unit) = unit_of(bytes) else {
        return match bytes {
            1 => "1 byte".to_owned(),
            bytes => format!("{bytes} bytes"),
        };
    };
    if bytes.is_multiple_of(unit.bytes) {
        format!("{} {}", bytes / unit.bytes, unit.name)
    } else if bytes.is_multiple_of(unit.bytes / 10) {
        short(bytes)
    } else {
        format!("{} ({} bytes)", short(bytes), grouped(bytes))
    }
}

struct Unit {
    bytes: u64,
    name: &'static str,
}

/// The largest unit that there is one of at least.
fn unit_of(bytes: u64) -> Option<Unit> {
    let thousands = bytes.checked_ilog10()? / 3;
    let nth = usize::try_from(thousands.checked_sub(1)?).ok()?;
    Some(Unit {
        bytes: 1000_u64.pow(thousands),
        name: UNITS.get(nth)?,
    })
}

/// A number with a blank before each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_said_in_their_largest_unit() {
        for (bytes, said) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (10_485_760, "10.4 MB"),
            (999_999, "999.9 kB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(short(bytes), said);
        }
    }

    #[test]
    fn a_round_number_is_said_by_its_unit_alone_and_any_other_in_full_as_well() {
        for (bytes, said) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (999, "999 bytes"),
            (10_000_000_000, "10 GB"),
            (1_500_000_000, "1.5 GB"),
            (1_610_612_736, "1.6 GB (1 610 612 736 bytes)"),
            (10_000_000_001, "10.0 GB (10 000 000 001 bytes)"),
            (1_001, "1.0 kB (1 001 bytes)"),
            (u64::MAX, "18.4 EB (18 446 744 073 709 551 615 bytes)"),
        ] {
            assert_eq!(whole(bytes), said);
        }
    }

    proptest::proptest! {
        #[test]
        fn two_numbers_that_differ_read_otherwise(one: u64, other: u64, near in 0..2000_u64) {
            proptest::prop_assert_eq!(one == other, whole(one) == whole(other));
            let close = one.saturating_add(near);
            proptest::prop_assert_eq!(one == close, whole(one) == whole(close));
        }
    }
}
