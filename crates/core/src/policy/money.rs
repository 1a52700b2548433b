//! Money: exact decimals of US dollars, never a float.

use std::fmt;

use rust_decimal::{Decimal, RoundingStrategy};

/// Digits before the point that the wire allows.
const WIRE_INTEGER_DIGITS_MAX: usize = 12;
/// Digits behind the point that the wire allows.
pub const WIRE_FRACTION_DIGITS_MAX: usize = 6;

/// An amount of US dollars with at most twelve digits before and six behind the point when it comes from the wire.
///
/// Its only JSON form is a string in the spelling of protocol section 3. Sums stay exact: arithmetic is checked and
/// answers `None` instead of rounding or wrapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(Decimal);

/// A text that is not an amount of money in the one spelling the protocol allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an amount of money like `12.50` (at most 12 digits, a point, at most 6 digits)")]
pub struct NotMoney;

impl Usd {
    /// Nothing.
    pub const ZERO: Usd = Usd(Decimal::ZERO);

    /// Reads `(0|[1-9][0-9]{0,11})(\.[0-9]{1,6})?`, protocol section 3, and nothing else.
    ///
    /// # Errors
    /// Any other spelling: signs, exponents, leading zeros, more digits.
    pub fn from_wire(text: &str) -> Result<Usd, NotMoney> {
        let (whole, fraction) =
            text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let whole_fits = digits(whole)
            && whole.len() <= WIRE_INTEGER_DIGITS_MAX
            && (whole == "0" || !whole.starts_with('0'));
        let fraction_fits =
            fraction.is_none_or(|rest| digits(rest) && rest.len() <= WIRE_FRACTION_DIGITS_MAX);
        if !(whole_fits && fraction_fits) {
            return Err(NotMoney);
        }
        Decimal::from_str_exact(text).map(Usd).map_err(|_| NotMoney)
    }

    /// Reads the text of a JSON number, as an agent prints a price: the digits themselves, rounded to the nearest millionth.
    ///
    /// # Errors
    /// No number, one below nothing, or one that the wire could not hold.
    pub fn from_number_text(text: &str) -> Result<Usd, NotMoney> {
        let read = if text.contains(['e', 'E']) { Decimal::from_scientific } else { Decimal::from_str_exact };
        let places = u32::try_from(WIRE_FRACTION_DIGITS_MAX).map_err(|_| NotMoney)?;
        let rounded = read(text)
            .map_err(|_| NotMoney)?
            .round_dp_with_strategy(places, RoundingStrategy::MidpointAwayFromZero)
            .normalize();
        Usd::from_wire(&rounded.to_string())
    }

    /// An amount computed by a rule; the caller vouches for its range.
    #[must_use]
    pub const fn from_decimal(amount: Decimal) -> Usd {
        Usd(amount)
    }

    /// The exact decimal.
    #[must_use]
    pub const fn decimal(self) -> Decimal {
        self.0
    }

    /// The sum, or `None` where it cannot be held exactly.
    #[must_use]
    pub fn checked_add(self, other: Usd) -> Option<Usd> {
        self.0.checked_add(other.0).map(Usd)
    }

    /// The difference, or `None` where it cannot be held exactly; it may be negative.
    #[must_use]
    pub fn checked_sub(self, other: Usd) -> Option<Usd> {
        self.0.checked_sub(other.0).map(Usd)
    }

    /// True for amounts above nothing.
    #[must_use]
    pub fn is_positive(self) -> bool {
        self.0 > Decimal::ZERO
    }

    /// True for amounts below nothing.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.0 < Decimal::ZERO
    }
}

impl fmt::Display for Usd {
    /// The canonical spelling: no exponent, no zeros behind, `0` for nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.normalize().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_has_one_spelling_on_the_wire() {
        for good in ["0", "0.5", "12.000001", "999999999999.999999", "1.50"] {
            assert!(Usd::from_wire(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "1.",
            ".5",
            "01",
            "-1",
            "+1",
            "1e3",
            "1_0",
            "0.0000001",
            "1000000000000",
            " 1",
            "1 ",
            "١",
        ] {
            assert_eq!(Usd::from_wire(bad), Err(NotMoney), "{bad}");
        }
    }

    #[test]
    fn a_number_is_read_by_its_digits() {
        for (text, usd) in [
            ("0", "0"),
            ("0.0115", "0.0115"),
            ("0.015125000000000001", "0.015125"),
            ("0.30000000000000004", "0.3"),
            ("1.5e-5", "0.000015"),
            ("123456789012.5", "123456789012.5"),
        ] {
            assert_eq!(Usd::from_number_text(text).map(|usd| usd.to_string()).as_deref(), Ok(usd), "{text}");
        }
        for bad in ["-1", "1e13", "null", "\"1\"", "true", "1000000000000"] {
            assert_eq!(Usd::from_number_text(bad), Err(NotMoney), "{bad}");
        }
    }

    #[test]
    fn money_is_written_without_zeros_behind() {
        assert_eq!(Usd::from_wire("1.50").unwrap().to_string(), "1.5");
        assert_eq!(Usd::from_wire("100").unwrap().to_string(), "100");
        assert_eq!(Usd::from_wire("0.000000").unwrap().to_string(), "0");
    }
}
