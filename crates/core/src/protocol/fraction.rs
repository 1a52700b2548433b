//! Fractions on the wire: strings with at most three places, held as thousandths.

use std::fmt;

use rust_decimal::Decimal;

/// Digits before the point that the wire allows.
const INTEGER_DIGITS_MAX: usize = 12;
/// Digits behind the point that the wire allows.
const PLACES_MAX: usize = 3;

/// A fraction that is not negative, exact to a thousandth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fraction(u64);

/// A text that is not a fraction in the protocol's one spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a fraction like `0.375` (at most 12 digits, a point, at most 3 digits)")]
pub struct NotAFraction;

impl Fraction {
    /// Nothing.
    pub const ZERO: Fraction = Fraction(0);
    /// The largest one the spelling can hold.
    pub const MAX: Fraction = Fraction(999_999_999_999_999);

    /// So many thousandths, moved down to the largest the spelling can hold.
    #[must_use]
    pub const fn from_thousandths(thousandths: u64) -> Fraction {
        if thousandths > Fraction::MAX.0 { Fraction::MAX } else { Fraction(thousandths) }
    }

    /// The thousandths.
    #[must_use]
    pub const fn thousandths(self) -> u64 {
        self.0
    }

    /// The exact decimal, for the rules that compute with it.
    #[must_use]
    pub fn decimal(self) -> Decimal {
        Decimal::from_i128_with_scale(i128::from(self.0), 3)
    }

    /// Reads `(0|[1-9][0-9]{0,11})(\.[0-9]{1,3})?`, protocol section 3.
    ///
    /// # Errors
    /// Any other spelling.
    pub fn from_wire(text: &str) -> Result<Fraction, NotAFraction> {
        let (whole, places) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let whole_fits =
            digits(whole) && whole.len() <= INTEGER_DIGITS_MAX && (whole == "0" || !whole.starts_with('0'));
        if !whole_fits || places.is_some_and(|rest| !digits(rest) || rest.len() > PLACES_MAX) {
            return Err(NotAFraction);
        }
        let units: u64 = whole.parse().map_err(|_| NotAFraction)?;
        let padded = format!("{:0<3}", places.unwrap_or("0"));
        let rest: u64 = padded.parse().map_err(|_| NotAFraction)?;
        Ok(Fraction(units.saturating_mul(1000).saturating_add(rest)))
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, rest) = (self.0 / 1000, self.0 % 1000);
        if rest == 0 {
            return write!(f, "{units}");
        }
        let places = format!("{rest:03}");
        write!(f, "{units}.{}", places.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_survives_its_text() {
        for (text, thousandths) in [("0", 0), ("0.5", 500), ("0.37", 370), ("24", 24_000), ("1.001", 1001)] {
            let fraction = Fraction::from_wire(text).unwrap();
            assert_eq!((fraction.thousandths(), fraction.to_string().as_str()), (thousandths, text));
            assert_eq!(fraction.decimal().normalize().to_string(), text);
        }
        for bad in ["", ".5", "1.", "1.0000", "01", "-1", "1e3", "1000000000000", "+1", "1.2.3"] {
            assert_eq!(Fraction::from_wire(bad), Err(NotAFraction), "{bad}");
        }
        assert_eq!(Fraction::from_wire(&Fraction::MAX.to_string()), Ok(Fraction::MAX));
    }
}
