//! Closed lists of words: an enum whose values each have exactly one spelling on the wire.

/// Makes an enum with `ALL`, `as_str`, `parse` and `Display` from its words.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// Every value, in the order of the list.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The word on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }

            /// The value of a word; `None` for a word outside the list.
            #[must_use]
            pub fn parse(word: &str) -> Option<$name> {
                match word { $($word => Some($name::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl crate::protocol::writer::Emit for $name {
            fn emit(&self, out: &mut String) {
                self.as_str().emit(out);
            }
        }

        impl crate::protocol::members::Word for $name {
            fn of(word: &str) -> Option<$name> {
                $name::parse(word)
            }
        }
    };
}

pub(crate) use words;
