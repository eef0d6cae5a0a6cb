//! The encoding of tuples: injective, ordered, bounded, canonical. The oracle of the order is written out here.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in test functions; here they are in what those call"
)]

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};

use larder_format::{Date, LocalDateTime, Part, Time, Tuple, TupleError, ZonedInstant};
use proptest::prelude::*;

/// Compares by type, then by value, without a look at the encoding or at `Ord for Part`.
fn compare(a: &[Part], b: &[Part]) -> Ordering {
    for (a, b) in a.iter().zip(b) {
        let ordering = rank(a).cmp(&rank(b)).then_with(|| compare_values(a, b));
        if ordering.is_ne() {
            return ordering;
        }
    }
    a.len().cmp(&b.len())
}

fn rank(part: &Part) -> usize {
    match part {
        Part::Nil => 0,
        Part::Bool(false) => 1,
        Part::Bool(true) => 2,
        Part::Integer(_) => 3,
        Part::Float(_) => 4,
        Part::Symbol(_) => 5,
        Part::String(_) => 6,
        Part::Bytes(_) => 7,
        Part::Date(_) => 8,
        Part::Time(_) => 9,
        Part::LocalDateTime(_) => 10,
        Part::ZonedInstant(_) => 11,
        Part::Uuid(_) => 12,
        Part::List(_) => 13,
        _ => panic!("a type without a place in the order"),
    }
}

fn date(date: &Date) -> (i32, u8, u8) {
    (date.year(), date.month(), date.day())
}

fn compare_values(a: &Part, b: &Part) -> Ordering {
    match (a, b) {
        (Part::Integer(a), Part::Integer(b)) => a.cmp(b),
        (Part::Float(a), Part::Float(b)) => {
            a.partial_cmp(b).unwrap().then_with(|| b.is_sign_negative().cmp(&a.is_sign_negative()))
        }
        (Part::Symbol(a), Part::Symbol(b)) | (Part::String(a), Part::String(b)) => a.bytes().cmp(b.bytes()),
        (Part::Bytes(a), Part::Bytes(b)) => a.iter().cmp(b),
        (Part::Date(a), Part::Date(b)) => date(a).cmp(&date(b)),
        (Part::Time(a), Part::Time(b)) => a.nanos_of_day().cmp(&b.nanos_of_day()),
        (Part::LocalDateTime(a), Part::LocalDateTime(b)) => {
            (date(&a.date), a.time.nanos_of_day()).cmp(&(date(&b.date), b.time.nanos_of_day()))
        }
        (Part::ZonedInstant(a), Part::ZonedInstant(b)) => {
            let nanos = |at: &ZonedInstant| i128::from(at.seconds()) * 1_000_000_000 + i128::from(at.nanos());
            nanos(a).cmp(&nanos(b)).then_with(|| a.zone().bytes().cmp(b.zone().bytes()))
        }
        (Part::Uuid(a), Part::Uuid(b)) => u128::from_be_bytes(*a).cmp(&u128::from_be_bytes(*b)),
        (Part::List(a), Part::List(b)) => compare(a, b),
        _ => Ordering::Equal,
    }
}

fn agree(a: &[Part], b: &[Part]) {
    let (ea, eb) = (Tuple::encode(a).unwrap(), Tuple::encode(b).unwrap());
    let expected = compare(a, b);
    assert_eq!(ea.cmp(&eb), expected, "{a:?} {b:?}");
    assert_eq!(a.cmp(b), expected, "{a:?} {b:?}");
    let (ta, tb) = (Tuple::decode(&ea).unwrap(), Tuple::new(b.to_vec()).unwrap());
    assert_eq!(ta.cmp(&tb), expected, "{a:?} {b:?}");
    assert_eq!(compare(ta.parts(), a), Ordering::Equal, "{a:?}");
}

/// A generator of its own, so that the seeds give the same tuples for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    fn text(&mut self) -> String {
        let letters = ['\0', '\u{1}', 'a', 'b', '/', ':', '|', '\u{7f}', 'é', '\u{ffff}', '\u{10ffff}'];
        (0..self.below(4)).map(|_| self.pick(&letters)).collect()
    }

    fn integer(&mut self) -> i128 {
        let near =
            [0, 0xff, 0xffff, 0xff_ffff, i128::from(u32::MAX), i128::from(i64::MAX), -(1 << 63), 1 << 63];
        let value = match self.below(3) {
            0 => self.pick(&near) + i128::from(self.below(5)) - 2,
            1 => i128::from(self.next().cast_signed() >> self.below(64)),
            _ => i128::from(self.next() >> self.below(64)),
        };
        let value = if self.below(2) == 0 { value } else { -value };
        value.clamp(Part::INTEGER_MIN, Part::INTEGER_MAX)
    }

    fn float(&mut self) -> f64 {
        let near =
            [0.0, -0.0, 1.0, -1.0, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 5e-324, f64::MAX];
        let random = f64::from_bits(self.next());
        if self.below(2) == 0 || random.is_nan() { self.pick(&near) } else { random }
    }

    fn date(&mut self) -> Date {
        let year = self.pick(&[-9999, -1, 0, 1, 1970, 2024, 9999]);
        Date::new(year, self.pick(&[1, 2, 12]), self.pick(&[1, 2, 28])).unwrap()
    }

    fn time(&mut self) -> Time {
        let nanos = self.below(Time::NANOS_PER_DAY);
        Time::new(self.pick(&[0, 1, 255, 256, nanos, Time::NANOS_PER_DAY - 1])).unwrap()
    }

    fn part(&mut self, depth: u64) -> Part {
        match self.below(if depth == 0 { 13 } else { 15 }) {
            0 => Part::Nil,
            1 => Part::Bool(self.below(2) == 0),
            2 | 3 => Part::Integer(self.integer()),
            4 => Part::Float(self.float()),
            5 => Part::Symbol(self.text()),
            6 => Part::String(self.text()),
            7 | 8 => Part::Bytes((0..self.below(4)).map(|_| self.pick(&[0, 1, 0x10, 0xfe, 0xff])).collect()),
            9 => Part::Date(self.date()),
            10 => Part::Time(self.time()),
            11 => Part::LocalDateTime(LocalDateTime { date: self.date(), time: self.time() }),
            12 => {
                if self.below(2) == 0 {
                    let mut uuid = [0; 16];
                    uuid[usize::try_from(self.below(16)).unwrap()] = self.pick(&[0, 1, 0xff]);
                    return Part::Uuid(uuid);
                }
                let random = self.next().cast_signed();
                let seconds = self.pick(&[0, -1, 1, i64::MIN, i64::MAX, random]);
                let zone = self.pick(&["UTC", "UT", "Europe/Berlin", "+02:00"]);
                Part::ZonedInstant(ZonedInstant::new(seconds, self.pick(&[0, 1, 999_999_999]), zone).unwrap())
            }
            _ => Part::List(self.parts(depth - 1)),
        }
    }

    fn parts(&mut self, depth: u64) -> Vec<Part> {
        (0..self.below(4)).map(|_| self.part(depth)).collect()
    }

    /// A tuple that begins as the other does, so that the difference lies deep.
    fn near(&mut self, other: &[Part]) -> Vec<Part> {
        let mut parts = other.to_vec();
        match (self.below(4), parts.last_mut()) {
            (0, _) | (_, None) => parts.push(self.part(2)),
            (1, _) => drop(parts.pop()),
            (_, Some(Part::List(list))) => *list = self.near(list),
            (_, Some(Part::String(text) | Part::Symbol(text))) => text.push_str(&self.text()),
            (_, Some(Part::Bytes(bytes))) => bytes.push(self.pick(&[0, 1, 0xff])),
            (_, Some(Part::Integer(value))) => {
                *value = (*value + i128::from(self.below(5)) - 2).clamp(Part::INTEGER_MIN, Part::INTEGER_MAX);
            }
            (_, Some(last)) => *last = self.part(2),
        }
        parts
    }
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    any::<u64>().prop_map(|seed| Random(seed).parts(4))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn s1_6_c_order_of_bytes_is_the_logical_order(a in parts(), b in parts()) {
        agree(&a, &b);
        agree(&b, &a);
    }

    #[test]
    fn s1_6_c_order_of_any_text_integer_and_float(
        texts in any::<(String, String)>(), integers in any::<(i64, u64)>(), floats in any::<(f64, f64)>(),
    ) {
        agree(&[Part::String(texts.0)], &[Part::String(texts.1)]);
        agree(&[integers.0.into()], &[integers.1.into()]);
        if !floats.0.is_nan() && !floats.1.is_nan() {
            agree(&[floats.0.into()], &[floats.1.into()]);
        }
    }

    #[test]
    fn whatever_decodes_encodes_to_the_same_bytes(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(tuple) = Tuple::decode(&bytes) {
            prop_assert_eq!(Tuple::encode(tuple.parts()).unwrap(), bytes);
        }
    }

    #[test]
    fn a_changed_byte_is_refused_or_canonical(parts in parts(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = Tuple::encode(&parts).unwrap();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(tuple) = Tuple::decode(&bytes) {
                prop_assert_eq!(Tuple::encode(tuple.parts()).unwrap(), bytes.clone());
            }
            if let Ok(tuple) = Tuple::decode(&bytes[..at]) {
                prop_assert_eq!(Tuple::encode(tuple.parts()).unwrap(), &bytes[..at]);
            }
        }
    }
}

#[test]
fn s1_6_c_order_of_100_000_random_tuples() {
    let mut random = Random(16);
    let mut last = Vec::new();
    let mut all: Vec<(Vec<u8>, Vec<Part>)> = Vec::new();
    for _ in 0..50_000 {
        let parts = random.parts(3);
        let near = random.near(&parts);
        agree(&parts, &near);
        agree(&last, &near);
        last = parts.clone();
        all.push((Tuple::encode(&parts).unwrap(), parts));
        all.push((Tuple::encode(&near).unwrap(), near));
    }
    assert_eq!(all.len(), 100_000);
    all.sort_by(|a, b| a.0.cmp(&b.0));
    for pair in all.windows(2) {
        let ordering = compare(&pair[0].1, &pair[1].1);
        assert_eq!(ordering, pair[0].0.cmp(&pair[1].0), "{pair:?}");
    }
}

#[test]
fn s1_6_c_order_of_the_types() {
    let zoned = ZonedInstant::new(i64::MIN, 0, "UTC").unwrap();
    let day = Date::new(-9999, 1, 1).unwrap();
    let midnight = Time::new(0).unwrap();
    let ascending = [
        Part::Nil,
        Part::Bool(false),
        Part::Bool(true),
        Part::Integer(Part::INTEGER_MIN),
        Part::Integer(-256),
        Part::Integer(-255),
        Part::Integer(-1),
        Part::Integer(0),
        Part::Integer(255),
        Part::Integer(256),
        Part::Integer(Part::INTEGER_MAX),
        Part::Float(f64::NEG_INFINITY),
        Part::Float(-1.0),
        Part::Float(-0.0),
        Part::Float(0.0),
        Part::Float(5e-324),
        Part::Float(f64::INFINITY),
        Part::Symbol(String::new()),
        Part::Symbol("z".into()),
        Part::String(String::new()),
        Part::String("\0".into()),
        Part::String("a".into()),
        Part::String("a\0".into()),
        Part::String("a\u{1}".into()),
        Part::Bytes(vec![]),
        Part::Bytes(vec![0xff; 3]),
        Part::Date(day),
        Part::Date(Date::new(2024, 1, 1).unwrap()),
        Part::Time(midnight),
        Part::LocalDateTime(LocalDateTime { date: day, time: midnight }),
        Part::ZonedInstant(zoned),
        Part::Uuid([0; 16]),
        Part::Uuid([0xff; 16]),
        Part::List(vec![]),
        Part::List(vec![Part::Nil]),
        Part::List(vec![Part::Nil, Part::Nil]),
        Part::List(vec![Part::List(vec![])]),
    ];
    for (i, a) in ascending.iter().enumerate() {
        for (j, b) in ascending.iter().enumerate() {
            assert_eq!(compare(std::slice::from_ref(a), std::slice::from_ref(b)), i.cmp(&j), "{a:?} {b:?}");
            agree(std::slice::from_ref(a), std::slice::from_ref(b));
            agree(&[a.clone(), Part::Nil], &[b.clone(), Part::Uuid([0xff; 16])]);
            agree(&[Part::List(vec![a.clone()]), Part::Nil], &[Part::List(vec![b.clone(), a.clone()])]);
        }
    }
}

#[test]
fn s1_6_a_injective_for_12_values_and_round_trip_type_exact() {
    let tuples: Vec<Vec<Part>> = vec![
        vec![Part::Nil],
        vec!["".into()],
        vec![1.into()],
        vec!["1".into()],
        vec![Part::Symbol("1".into())],
        vec![1.0.into()],
        vec![true.into()],
        vec!["true".into()],
        vec![Date::new(2024, 1, 1).unwrap().into()],
        vec!["2024-01-01".into()],
        vec![1.into(), 2.into()],
        vec![vec![Part::from(1), Part::from(2)].into()],
    ];
    let encoded: Vec<Vec<u8>> = tuples.iter().map(|parts| Tuple::encode(parts).unwrap()).collect();
    for (i, a) in encoded.iter().enumerate() {
        for b in &encoded[..i] {
            assert_ne!(a, b);
        }
        let decoded = Tuple::decode(a).unwrap();
        assert_eq!(format!("{:?}", decoded.parts()), format!("{:?}", tuples[i]));
    }
}

#[test]
fn s1_6_a_injective_where_parts_meet() {
    let encode = |parts: &[Part]| Tuple::encode(parts).unwrap();
    assert_ne!(encode(&["a".into(), "b".into()]), encode(&["ab".into()]));
    assert_ne!(encode(&["a\0".into(), "b".into()]), encode(&["a".into(), "\0b".into()]));
    assert_ne!(encode(&[Part::List(vec![]), Part::Nil]), encode(&[Part::List(vec![Part::Nil])]));
    assert_ne!(encode(&[]), encode(&[Part::Nil]));
    assert_ne!(encode(&[(-0.0).into()]), encode(&[0.0.into()]));
}

fn nested(lists: usize) -> Vec<Part> {
    (1..lists).fold(vec![Part::List(vec![])], |inner, _| vec![Part::List(inner)])
}

#[test]
fn s1_6_b_nesting_depth_16_is_taken_and_17_refused() {
    let too_deep = TupleError::TooDeep { max: 16 };
    let bytes = Tuple::encode(&nested(16)).unwrap();
    assert_eq!(Tuple::decode(&bytes).unwrap().parts(), nested(16));
    assert_eq!(Tuple::encode(&nested(17)), Err(too_deep.clone()));
    assert_eq!(Tuple::decode(&[[0x90; 17], [0x00; 17]].concat()), Err(too_deep.clone()));
    assert_eq!(Tuple::decode(&[0x90; 4096]), Err(too_deep));
}

#[test]
fn s1_6_d_too_long_is_refused_and_not_truncated() {
    let fits = [Part::String("s".repeat(4094))];
    let bytes = Tuple::encode(&fits).unwrap();
    assert_eq!(bytes.len(), 4096);
    assert_eq!(Tuple::decode(&bytes).unwrap().parts(), fits);
    for (part, len) in [
        (Part::String("s".repeat(4095)), 4097),
        (Part::Bytes(vec![0; 4094]), 8190),
        (Part::Bytes(vec![1; 1 << 20]), (1 << 20) + 2),
        (Part::List(vec![Part::Nil; 4095]), 4097),
    ] {
        assert_eq!(Tuple::encode(&[part]), Err(TupleError::TooLong { len, max: 4096 }));
    }
    assert_eq!(Tuple::decode(&[0x10; 4097]), Err(TupleError::TooLong { len: 4097, max: 4096 }));
}

#[test]
fn s1_6_e_nfc_and_nfd_are_two_keys() {
    let (nfc, nfd) = (Part::from("\u{e9}"), Part::from("e\u{301}"));
    assert_ne!(Tuple::encode(std::slice::from_ref(&nfc)), Tuple::encode(std::slice::from_ref(&nfd)));
    for part in [nfc, nfd] {
        let bytes = Tuple::encode(std::slice::from_ref(&part)).unwrap();
        assert_eq!(Tuple::decode(&bytes).unwrap().into_parts(), [part]);
    }
}

#[test]
fn s1_6_f_hostile_strings_round_trip() {
    let texts = [
        "a:b",
        "d:2024-01-01",
        "a|b",
        "a/b",
        "/",
        "\0",
        "\0\0",
        "a\0b",
        "\0\u{ff}",
        "\u{ff}",
        "\u{10ffff}",
        "..",
        "",
        " ",
        "\n\r\t",
        "\u{1b}[0m",
        "\u{202e}",
        "\u{feff}",
        "'; DROP TABLE keys;--",
        "nil",
        "\u{fffd}",
    ];
    for text in texts {
        for part in [Part::from(text), Part::Symbol(text.into()), Part::Bytes(text.into())] {
            let parts = [part.clone(), Part::List(vec![part.clone(), Part::Nil]), part];
            let bytes = Tuple::encode(&parts).unwrap();
            assert_eq!(Tuple::decode(&bytes).unwrap().parts(), parts);
        }
    }
    for bytes in [vec![0xff], vec![0, 0xff], vec![0xff, 0], vec![0, 0, 0xff, 0xff], (0..=255).collect()] {
        let parts = [Part::Bytes(bytes), 1.into()];
        assert_eq!(Tuple::decode(&Tuple::encode(&parts).unwrap()).unwrap().parts(), parts);
    }
}

#[test]
fn values_without_a_place_in_the_order_are_refused() {
    let inside = |part: Part| Tuple::encode(&[Part::List(vec![part])]);
    assert_eq!(inside(f64::NAN.into()), Err(TupleError::NotANumber));
    assert_eq!(inside((-f64::NAN).into()), Err(TupleError::NotANumber));
    for value in [Part::INTEGER_MIN - 1, Part::INTEGER_MAX + 1, i128::MIN, i128::MAX] {
        assert_eq!(inside(Part::Integer(value)), Err(TupleError::IntegerOutOfRange { value }));
    }
}

#[test]
fn dates_times_and_instants_are_checked() {
    for (year, month, day) in
        [(2024, 2, 29), (2000, 2, 29), (0, 2, 29), (-4, 2, 29), (-9999, 1, 1), (9999, 12, 31)]
    {
        Date::new(year, month, day).unwrap();
    }
    for (year, month, day) in [
        (2023, 2, 29),
        (1900, 2, 29),
        (2024, 2, 30),
        (2024, 4, 31),
        (2024, 0, 1),
        (2024, 13, 1),
        (2024, 1, 0),
        (2024, 1, 32),
        (10_000, 1, 1),
        (-10_000, 1, 1),
        (i32::MIN, 1, 1),
        (i32::MAX, 255, 255),
    ] {
        assert_eq!(Date::new(year, month, day), Err(TupleError::InvalidDate { year, month, day }));
    }
    let nanos_of_day = 86_400_000_000_000;
    assert_eq!(Time::new(nanos_of_day), Err(TupleError::InvalidTime { nanos_of_day }));
    Time::new(nanos_of_day - 1).unwrap();
    let nanos = 1_000_000_000;
    assert_eq!(ZonedInstant::new(0, nanos, "UTC"), Err(TupleError::InvalidInstant { nanos }));
    for zone in ["", "a\0b", "UTC\n", &"z".repeat(256)] {
        let error = ZonedInstant::new(0, 0, zone).unwrap_err();
        assert_eq!(error, TupleError::InvalidZone { len: zone.len(), max: 255 });
    }
}

#[test]
fn hostile_bytes_are_refused_each_for_its_own_reason() {
    let not_canonical =
        |position| TupleError::NotCanonical { position, expected: "an integer without leading zeros" };
    let truncated = |position| TupleError::Truncated { position };
    let tag = |tag, position| TupleError::UnknownTag { tag, position };
    let time = [0x70_u8].iter().copied().chain(Time::NANOS_PER_DAY.to_be_bytes()).collect::<Vec<u8>>();
    let cases: Vec<(&[u8], TupleError)> = vec![
        (&[0x00], tag(0x00, 0)),
        (&[0x10, 0x00], tag(0x00, 1)),
        (&[0x11], tag(0x11, 0)),
        (&[0x22], tag(0x22, 0)),
        (&[0x2f], tag(0x2f, 0)),
        (&[0x41], tag(0x41, 0)),
        (&[0xff], tag(0xff, 0)),
        (&[0x90, 0xff, 0x00], tag(0xff, 1)),
        (&[0x39], truncated(1)),
        (&[0x3a, 0x01], truncated(2)),
        (&[0x39, 0x00], not_canonical(0)),
        (&[0x10, 0x3a, 0x00, 0x01], not_canonical(1)),
        (&[0x37, 0xff], not_canonical(0)),
        (&[0x36, 0xff, 0x00], not_canonical(0)),
        (&[0x30, 0, 0, 0, 0, 0, 0, 0, 0], TupleError::IntegerOutOfRange { value: -i128::from(u64::MAX) }),
        (&[0x48, 0, 0, 0], truncated(4)),
        (&[0x48, 0xff, 0xf8, 0, 0, 0, 0, 0, 0], TupleError::NotANumber),
        (&[0x48, 0, 0, 0, 0, 0, 0, 0, 0], TupleError::NotANumber),
        (&[0x58], truncated(1)),
        (&[0x58, b'a'], truncated(2)),
        (&[0x58, 0x00, 0xff], truncated(3)),
        (&[0x58, 0xc3, 0x00], TupleError::NotUtf8 { position: 1 }),
        (&[0x50, 0xff, 0x00], TupleError::NotUtf8 { position: 1 }),
        (&[0x68, 0x80, 0, 0x07, 0xe8, 2, 30], TupleError::InvalidDate { year: 2024, month: 2, day: 30 }),
        (&[0x68, 0x80, 0, 0x07, 0xe8, 2], truncated(6)),
        (&time, TupleError::InvalidTime { nanos_of_day: Time::NANOS_PER_DAY }),
        (&[0x80, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], TupleError::InvalidZone { len: 0, max: 255 }),
        (
            &[0x80, 0x80, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, b'Z', 0],
            TupleError::InvalidInstant { nanos: u32::MAX },
        ),
        (&[0x88, 1, 2, 3], truncated(4)),
        (&[0x90], truncated(1)),
        (&[0x90, 0x10], truncated(2)),
    ];
    for (bytes, expected) in cases {
        let error = Tuple::decode(bytes).unwrap_err();
        assert_eq!(error, expected, "{bytes:02x?}");
        assert!(!error.to_string().contains(char::is_control));
    }
}

#[test]
fn equality_order_and_hash_are_those_of_the_bytes() {
    let hash = |of: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        of(&mut hasher);
        hasher.finish()
    };
    let tuples = [vec![], vec![1.into()], vec![1.into(), "a".into()], vec![2.into()], vec!["a".into()]];
    let tuples = tuples.map(|parts| Tuple::new(parts).unwrap());
    for (a, tuple) in tuples.iter().enumerate() {
        assert_eq!(hash(&|it| tuple.hash(it)), hash(&|it| tuple.encoded().hash(it)), "{tuple:?}");
        assert_eq!(tuple.encoded_bytes(), tuple.encoded());
        for (b, other) in tuples.iter().enumerate() {
            assert_eq!((tuple.cmp(other), tuple.partial_cmp(other)), (a.cmp(&b), Some(a.cmp(&b))));
            assert_eq!(tuple == other, a == b, "{tuple:?} {other:?}");
        }
    }
}
