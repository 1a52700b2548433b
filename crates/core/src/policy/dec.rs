//! Exact decimals with at most 12 digits before and 12 behind the point, and quotients of them.
//!
//! Sums and comparisons of the rules are made on whole numbers of 10^-12, products and quotients on 256 bits, so that
//! nothing is rounded before it is written.

use std::fmt;

use rust_decimal::Decimal;

use crate::policy::money::Usd;

/// Digits allowed on either side of the point, as written.
const DIGITS_MAX: usize = 12;
/// One, in units.
pub const ONE: i128 = 1_000_000_000_000;
/// Places of a written ratio.
const RATIO_PLACES: usize = 9;
/// One, in units of a written ratio.
const RATIO_ONE: u128 = 1_000_000_000;

/// A decimal number, kept as a whole number of 10^-12.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dec(i128);

/// A text that is not a decimal of the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDec {
    /// Not `-?(0|[1-9][0-9]*)(\.[0-9]+)?`.
    #[error("not a plain decimal number")]
    NotADecimal,
    /// More than 12 digits on one side of the point.
    #[error("more than 12 digits before or behind the point")]
    OutOfRange,
}

impl BadDec {
    /// The code in `policy eval`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            BadDec::NotADecimal => "not_a_decimal",
            BadDec::OutOfRange => "out_of_range",
        }
    }
}

impl Dec {
    /// Nothing.
    pub const ZERO: Dec = Dec(0);
    /// One.
    pub const ONE: Dec = Dec(ONE);

    /// So many units of 10^-12.
    #[must_use]
    pub const fn from_units(units: i128) -> Dec {
        Dec(units)
    }

    /// Its units of 10^-12.
    #[must_use]
    pub const fn units(self) -> i128 {
        self.0
    }

    /// Its units of 10^-12 without the sign.
    #[must_use]
    pub const fn magnitude(self) -> u128 {
        self.0.unsigned_abs()
    }

    /// Reads `-?(0|[1-9][0-9]*)(\.[0-9]+)?` with at most 12 digits on either side of the point. `-0` is 0.
    ///
    /// # Errors
    /// Any other text.
    pub fn parse(text: &str) -> Result<Dec, BadDec> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return Err(BadDec::NotADecimal),
            Some((whole, fraction)) => (whole, fraction),
            None => (digits, ""),
        };
        let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty()
            || !plain(whole)
            || !plain(fraction)
            || (whole.len() > 1 && whole.starts_with('0'))
        {
            return Err(BadDec::NotADecimal);
        }
        if whole.len() > DIGITS_MAX || fraction.len() > DIGITS_MAX {
            return Err(BadDec::OutOfRange);
        }
        let padding = std::iter::repeat_n(b'0', DIGITS_MAX.saturating_sub(fraction.len()));
        let units = whole.bytes().chain(fraction.bytes()).chain(padding).fold(0_i128, |units, byte| {
            units.saturating_mul(10).saturating_add(i128::from(byte.wrapping_sub(b'0')))
        });
        Ok(Dec(if negative { units.wrapping_neg() } else { units }))
    }

    /// The same amount of money; `None` where it cannot be held.
    #[must_use]
    pub fn to_usd(self) -> Option<Usd> {
        Decimal::try_from_i128_with_scale(self.0, 12).ok().map(Usd::from_decimal)
    }

    /// The same number; `None` for an amount with more than 12 places behind the point.
    #[must_use]
    pub fn from_usd(amount: Usd) -> Option<Dec> {
        let amount = amount.decimal().normalize();
        let missing = 12_u32.checked_sub(amount.scale())?;
        amount.mantissa().checked_mul(10_i128.checked_pow(missing)?).map(Dec)
    }

    /// True below nothing.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// True above nothing.
    #[must_use]
    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }
}

impl fmt::Display for Dec {
    /// The one spelling: no exponent, no zeros behind, `0` for nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_negative() {
            f.write_str("-")?;
        }
        let one = ONE.unsigned_abs();
        let (whole, fraction) = (self.magnitude() / one, self.magnitude() % one);
        write!(f, "{whole}")?;
        write_fraction(f, fraction, DIGITS_MAX)
    }
}

/// Writes `.` and the digits of a fraction of so many places, without zeros behind; nothing for nothing.
fn write_fraction(f: &mut fmt::Formatter<'_>, fraction: u128, places: usize) -> fmt::Result {
    if fraction == 0 {
        return Ok(());
    }
    let (mut fraction, mut places) = (fraction, places);
    while fraction % 10 == 0 {
        fraction /= 10;
        places = places.saturating_sub(1);
    }
    write!(f, ".{fraction:0places$}")
}

/// An unsigned number of 256 bits: enough for every product the rules form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wide {
    high: u128,
    low: u128,
}

/// The lower half of 128 bits.
const LOW_HALF: u128 = (1 << 64) - 1;

impl Wide {
    /// The product of two numbers; it always fits.
    pub(crate) const fn product(left: u128, right: u128) -> Wide {
        if let Some(low) = left.checked_mul(right) {
            return Wide { high: 0, low };
        }
        let (a, b) = (left >> 64, left & LOW_HALF);
        let (c, d) = (right >> 64, right & LOW_HALF);
        // Schoolbook on halves of 64 bits: none of these four products and sums can overflow 128 bits.
        let bd = b.wrapping_mul(d);
        let (middle, carry) = a.wrapping_mul(d).overflowing_add(b.wrapping_mul(c));
        let carry = if carry { 1_u128 << 64 } else { 0 };
        let (low, overflow) = bd.overflowing_add(middle << 64);
        let overflow = if overflow { 1 } else { 0 };
        let high = a.wrapping_mul(c).wrapping_add(middle >> 64).wrapping_add(carry).wrapping_add(overflow);
        Wide { high, low }
    }

    /// The sum; `None` above 256 bits.
    pub(crate) fn plus(self, other: Wide) -> Option<Wide> {
        let (low, carry) = self.low.overflowing_add(other.low);
        let high = self.high.checked_add(other.high)?.checked_add(u128::from(carry))?;
        Some(Wide { high, low })
    }

    /// The difference, or nothing where `other` is the greater one.
    pub(crate) fn minus_or_zero(self, other: Wide) -> Wide {
        if self <= other {
            return Wide::default();
        }
        let (low, borrow) = self.low.overflowing_sub(other.low);
        let high = self.high.wrapping_sub(other.high).wrapping_sub(u128::from(borrow));
        Wide { high, low }
    }

    /// The product with another number; `None` above 256 bits.
    pub(crate) fn times(self, factor: u128) -> Option<Wide> {
        let low = Wide::product(self.low, factor);
        let high = self.high.checked_mul(factor)?;
        low.plus(Wide { high, low: 0 })
    }

    /// Quotient and remainder; `None` for a divisor of 0.
    fn divided(self, divisor: u128) -> Option<(Wide, u128)> {
        let high = self.high.checked_div(divisor)?;
        let mut rest = self.high.checked_rem(divisor)?;
        if rest == 0 {
            let low = self.low.checked_div(divisor)?;
            return Some((Wide { high, low }, self.low.checked_rem(divisor)?));
        }
        let mut low = 0_u128;
        for bit in (0..128_u32).rev() {
            // The bit that leaves at the top counts: the rest may have 129 bits for a moment.
            let top = rest >> 127;
            rest = (rest << 1) | ((self.low >> bit) & 1);
            low <<= 1;
            if top == 1 || rest >= divisor {
                rest = rest.wrapping_sub(divisor);
                low |= 1;
            }
        }
        Some((Wide { high, low }, rest))
    }
}

impl From<u128> for Wide {
    fn from(low: u128) -> Wide {
        Wide { high: 0, low }
    }
}

/// An exact quotient of two numbers that are not negative, or infinity. It is written half-even to nine places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    numerator: Wide,
    /// 0 means infinity.
    denominator: u128,
}

impl Ratio {
    /// Spend after none at all.
    pub const INFINITE: Ratio = Ratio { numerator: Wide { high: 0, low: 1 }, denominator: 0 };
    /// One.
    pub const ONE: Ratio = Ratio { numerator: Wide { high: 0, low: 1 }, denominator: 1 };
    /// Nothing.
    pub const ZERO: Ratio = Ratio { numerator: Wide { high: 0, low: 0 }, denominator: 1 };

    /// A quotient.
    pub(crate) const fn new(numerator: Wide, denominator: u128) -> Ratio {
        Ratio { numerator, denominator }
    }

    /// The quotient of two whole numbers; infinite where the denominator is 0.
    #[must_use]
    pub fn of(numerator: u128, denominator: u128) -> Ratio {
        Ratio { numerator: Wide::from(numerator), denominator }
    }

    /// Rounded half-even, in units of 10^-9; `None` for infinity (and past 256 bits, which no rule reaches).
    fn rounded(&self) -> Option<Wide> {
        let (quotient, rest) = self.numerator.times(RATIO_ONE)?.divided(self.denominator)?;
        let to_next = self.denominator.checked_sub(rest)?;
        let up = rest > to_next || (rest == to_next && quotient.low & 1 == 1);
        quotient.plus(Wide::from(u128::from(up)))
    }
}

impl fmt::Display for Ratio {
    /// The one spelling: at most nine places, no zeros behind, `inf` for infinity.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((whole, fraction)) = self.rounded().and_then(|units| units.divided(RATIO_ONE)) else {
            return f.write_str("inf");
        };
        /// What is cut off at a time: 10^38 is the greatest power of ten below 2^128.
        const CHUNK: u128 = 100_000_000_000_000_000_000_000_000_000_000_000_000;
        match whole.divided(CHUNK) {
            Some((high, low)) if high != Wide::default() => write!(f, "{}{low:038}", high.low)?,
            Some(_) | None => write!(f, "{}", whole.low)?,
        }
        write_fraction(f, fraction, RATIO_PLACES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_decimal_is_read_in_one_spelling() {
        for (text, written) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("1.500", "1.5"),
            ("-20.05", "-20.05"),
            ("999999999999.999999999999", "999999999999.999999999999"),
            ("0.000000000001", "0.000000000001"),
        ] {
            assert_eq!(Dec::parse(text).unwrap().to_string(), written);
        }
        for bad in [
            "", "-", ".", ".5", "5.", "+1", "01", "-01", "1e3", "1_0", " 1", "1 ", "--1", "1.-5", "1.2.3",
            "٣",
        ] {
            assert_eq!(Dec::parse(bad), Err(BadDec::NotADecimal), "{bad}");
        }
        for far in ["1000000000000", "0.0000000000001", "-0.0000000000000"] {
            assert_eq!(Dec::parse(far), Err(BadDec::OutOfRange), "{far}");
        }
    }

    #[test]
    fn a_ratio_is_rounded_half_to_even_at_nine_places() {
        assert_eq!(Ratio::of(1, 3).to_string(), "0.333333333");
        assert_eq!(Ratio::of(2, 3).to_string(), "0.666666667");
        assert_eq!(Ratio::of(1, 2_000_000_000).to_string(), "0");
        assert_eq!(Ratio::of(3, 2_000_000_000).to_string(), "0.000000002");
        assert_eq!(Ratio::of(5, 2_000_000_000).to_string(), "0.000000002");
        assert_eq!(Ratio::of(4, 2).to_string(), "2");
        assert_eq!(Ratio::INFINITE.to_string(), "inf");
        assert_eq!(Ratio::ZERO.to_string(), "0");
    }

    #[test]
    fn a_ratio_of_more_than_128_bits_is_written_whole() {
        let ten_to_76 = Wide::product(10_u128.pow(38), 10_u128.pow(27));
        assert_eq!(Ratio::new(ten_to_76, 1).to_string(), format!("1{}", "0".repeat(65)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn a_decimal_survives_its_text_and_money(units in -(10_i128.pow(24) - 1)..10_i128.pow(24)) {
            let dec = Dec::from_units(units);
            prop_assert_eq!(Dec::parse(&dec.to_string()), Ok(dec));
            prop_assert_eq!(dec.to_usd().and_then(Dec::from_usd), Some(dec));
        }

        #[test]
        fn division_undoes_multiplication(quotient: u128, divisor in 1..=u128::MAX, rest: u128) {
            let rest = rest % divisor;
            let number = Wide::product(quotient, divisor).plus(Wide::from(rest)).unwrap();
            prop_assert_eq!(number.divided(divisor), Some((Wide::from(quotient), rest)));
            prop_assert_eq!(number.minus_or_zero(Wide::from(rest)), Wide::product(divisor, quotient));
        }
    }
}
