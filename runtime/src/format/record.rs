//! Records: plain structs that lie in the file as they lie in memory, and the macros that declare them.

/// A field of a record, for documentation and tests.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// First byte within the record.
    pub at: usize,
    /// Its type, as in Rust.
    pub kind: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub text: &'static str,
}

/// A record of the file. Reading and writing one is copying its bytes ([`bytemuck::bytes_of`]).
pub trait Record: bytemuck::Pod {
    /// Its name.
    const NAME: &'static str;
    /// Bytes of one record.
    const BYTES: usize = size_of::<Self>();
    /// Its fields, in order.
    #[doc(hidden)]
    const FIELDS: &'static [Field];
}

/// Declares a record: the struct, its [`Record`] implementation, and `read`, which copies it out of a file.
macro_rules! record {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $( $(#[doc = $text:literal])* pub $field:ident: $kind:ty, )*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(C)]
        pub struct $name {
            $( $(#[doc = $text])* pub $field: $kind, )*
        }

        impl $crate::format::Record for $name {
            const NAME: &'static str = stringify!($name);
            const FIELDS: &'static [$crate::format::Field] = &[
                $( $crate::format::Field {
                    at: core::mem::offset_of!($name, $field),
                    kind: stringify!($kind),
                    name: stringify!($field),
                    text: concat!($($text),*),
                }, )*
            ];
        }

        impl $name {
            /// The record at byte `at` of `bytes`; all zeros if it is not inside, which validation excludes.
            #[inline(always)]
            pub const fn read(bytes: &[u8], at: usize) -> Self {
                bytemuck::must_cast::<[u8; size_of::<Self>()], Self>($crate::format::bytes_at(bytes, at))
            }
        }
    };
}
pub(crate) use record;

/// Declares an enumeration that a record holds as one byte.
macro_rules! codes {
    (
        $(#[$attribute:meta])*
        pub enum $name:ident {
            $( $(#[$variant_attribute:meta])* $variant:ident = $code:literal, )*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[repr(u8)]
        pub enum $name {
            $( $(#[$variant_attribute])* $variant = $code, )*
        }

        impl $name {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The byte that stands for it in the file.
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The value that a byte stands for, if there is one.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $( $code => Some(Self::$variant), )*
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use codes;

/// Typed access to a record's fields that hold a code. Validation has seen that each code stands for a value.
macro_rules! coded_fields {
    ($record:ident { $( $(#[$attribute:meta])* $field:ident: $kind:ident or $fallback:ident, )* }) => {
        impl $record {
            $(
                $(#[$attribute])*
                #[inline(always)]
                pub const fn $field(&self) -> $kind {
                    match $kind::from_code(self.$field) {
                        Some(value) => value,
                        None => $kind::$fallback,
                    }
                }
            )*

            /// Whether every code stands for a value.
            pub(crate) const fn has_known_codes(&self) -> bool {
                $( $kind::from_code(self.$field).is_some() )&&*
            }
        }
    };
}
pub(crate) use coded_fields;

/// `N` bytes at `at`; zeros if they are not inside.
#[inline(always)]
pub(crate) const fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    if let Some((_, tail)) = bytes.split_at_checked(at)
        && let Some(found) = tail.first_chunk::<N>()
    {
        return *found;
    }
    [0; N]
}

/// `bytes[at..at + len]`, empty if that is not inside.
pub(crate) const fn slice_at(bytes: &[u8], at: usize, len: usize) -> &[u8] {
    if let Some((_, tail)) = bytes.split_at_checked(at)
        && let Some((found, _)) = tail.split_at_checked(len)
    {
        return found;
    }
    &[]
}
