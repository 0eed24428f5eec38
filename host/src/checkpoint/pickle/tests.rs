use safetensors::Dtype;

use super::*;

fn read(program: &[&[u8]]) -> Result<Pickle, PickleError> {
    Pickle::read(&program.concat())
}

fn malformed(program: &[&[u8]]) -> &'static str {
    match read(program).expect_err("refused") {
        PickleError::Malformed { what, .. } => what,
        other => panic!("{other}"),
    }
}

/// `("storage", FloatStorage, "0", "cpu", len)` as a persistent identifier.
fn storage(len: u8) -> Vec<u8> {
    [b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK", &[len][..], b"tQ"].concat()
}

/// A tensor of two dimensions over a storage of `len` elements.
fn tensor(len: u8, offset: u8, shape: [u8; 2], strides: [u8; 2]) -> Result<Pickle, PickleError> {
    let pair = |[a, b]: [u8; 2]| vec![b'K', a, b'K', b, opcodes::TUPLE2];
    let (shape, strides) = (pair(shape), pair(strides));
    let function = b"ctorch._utils\n_rebuild_tensor_v2\n(";
    read(&[function, &storage(len), b"K", &[offset], &shape, &strides, b"\x89NtR."])
}

#[test]
fn tensors_stay_inside_of_their_storage() {
    let found = tensor(24, 2, [3, 2], [1, 8]).expect("inside: 2 + 2·1 + 1·8 is the last");
    let Value::Tensor(tensor_found) = found.root() else { panic!("a tensor") };
    assert_eq!(
        (tensor_found.offset, &tensor_found.shape[..], &tensor_found.strides[..]),
        (2, &[3, 2][..], &[1, 8][..])
    );
    assert!(tensor(13, 2, [3, 2], [1, 8]).is_ok());
    assert!(tensor(12, 2, [3, 2], [1, 8]).is_err(), "the last element is the 13th");
    assert!(tensor(24, 0, [5, 5], [0, 1]).is_err(), "25 elements repeat what 24 hold");
    assert!(tensor(0, 0, [0, 7], [7, 1]).is_ok(), "empty");
    assert!(tensor(0, 1, [0, 7], [7, 1]).is_err(), "empty, behind the end");
}

#[test]
fn opcodes_and_names_that_do_more_than_hold_data_are_refused() {
    let error = read(&[b"cposix\nsystem\n."]).expect_err("refused");
    assert_eq!(error, PickleError::Global { module: "posix".into(), name: "system".into() });
    assert_eq!(error.to_string(), "posix.system is not imported");
    let error = read(&[b"\x80\x04\x8c\x05posix\x8c\x06system\x93."]).expect_err("refused");
    assert!(matches!(error, PickleError::Global { .. }));
    for (opcode, name) in [(0x92, "NEWOBJ_EX"), (b'i', "INST"), (0x82, "EXT1"), (0xff, "0xff")] {
        assert_eq!(read(&[&[opcode]]).expect_err("refused"), PickleError::Opcode { name: name.into(), at: 0 });
    }
}

/// A network's own object with attributes: `class_name`, and a member `m` of `_modules`.
fn network(member: &[u8]) -> Vec<u8> {
    let begin = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}(U\nclass_nameU\x08SongUNetU\x05state";
    [begin, &b"}(U\x08_modules}(U\x01m"[..], member, b"uuu\x85R."].concat()
}

const MODULES: &[u8] = b"ctorch.nn.modules.container\nModuleDict\n)\x81";

#[test]
fn objects_of_known_classes_alone_are_data() {
    assert!(malformed(&[b"ctorch\nFloatStorage\n)\x81."]).contains("no class that is known"));
    let pickle = read(&[&network(MODULES)]).expect("data");
    let found = persistent::network(&pickle).expect("a network");
    assert_eq!((found.classes, found.tensors.len()), ([Some("SongUNet"), None], 0));
    assert!(found.numbers.iter().all(Vec::is_empty));
    assert!(persistent::network(&read(&[b"}."]).expect("empty")).is_none());
}

/// Eight modules in each of as many levels, each the same: few values, and no end of places.
#[test]
fn modules_inside_of_themselves_end() {
    let members: Vec<u8> = (b'a'..=b'h').flat_map(|name| [b'U', 1, name, b'h', 0]).collect();
    let itself = [MODULES, b"q\x00}(U\x08_modules}(", &members, b"uub"].concat();
    let pickle = read(&[&network(&itself)]).expect("data");
    assert!(persistent::network(&pickle).is_none());
}

#[test]
fn storages_in_strings_of_bytes_are_whole_and_read_once() {
    // A magic number, a version, a machine; the storage; the keys; the number of elements, and as many.
    let parts: [&[u8]; 5] = [b"\x80\x02\x8a\x011.", b"\x80\x02M\xe9\x03.", b"\x80\x02}.", b"\x80\x02", b"."];
    let old = |claimed: u8, elements: u8| {
        let storage = [parts[0], parts[1], parts[2], parts[3], &storage(2), parts[4], b"\x80\x02]."].concat();
        [&storage[..], &u64::from(claimed).to_le_bytes(), &vec![0; 4 * usize::from(elements)]].concat()
    };
    let load = |inner: &[u8], again: &[u8]| {
        let len = [inner.len() as u8];
        read(&[b"ctorch.storage\n_load_from_bytes\nC", &len, inner, b"q\x00\x85R", again, b"."])
    };
    let whole = old(2, 2);
    let pickle = load(&whole, b"").expect("whole");
    let Value::Storage(found) = pickle.root() else { panic!("a storage") };
    assert_eq!((found.len, found.dtype, found.place + 8), (2, Dtype::F32, 34 + whole.len()));
    assert!(load(&old(2, 1), b"").is_err() && load(&old(3, 3), b"").is_err());
    assert!(load(&whole[..20], b"").is_err());
    let again = b"0ctorch.storage\n_load_from_bytes\nh\x00\x85R";
    assert!(load(&whole, again).is_err(), "once");
    // None of them holds another.
    let inner = [b"ctorch.storage\n_load_from_bytes\nC\x00\x85R.", &whole[..]].concat();
    assert!(load(&inner, b"").is_err());
}

#[test]
fn programs_that_do_not_fit_together_are_refused() {
    assert_eq!(read(&[b"N"]).expect_err("no end"), PickleError::Truncated);
    assert_eq!(read(&[b"X\xff\xff\xff\xffab"]).expect_err("longer than the file"), PickleError::Truncated);
    assert!(malformed(&[b"."]).contains("empty stack"));
    assert!(read(&[b"N(0."]).is_ok(), "a mark alone can be taken back");
    assert!(malformed(&[b"N(\x85."]).contains("empty stack"), "below a mark lies what is not to be taken");
    assert!(malformed(&[b"t."]).contains("not opened"));
    assert!(malformed(&[b"h\x00."]).contains("not remembered"));
    assert!(malformed(&[b"NNa."]).contains("not a list"));
    assert!(malformed(&[b"}(Nu."]).contains("without a value"));
    assert!(malformed(&[b"NNR."]).contains("not imported"));
    assert!(malformed(&[b"N}b."]).contains("attributes"));
}

#[test]
fn memory_follows_the_length_of_the_pickle() {
    // Each list holds the one before it twice: two to the power of a thousand, if it were copied.
    let mut program = b"]q\x00".to_vec();
    for _ in 0..1000 {
        program.extend(b"](h\x00h\x00eq\x00");
    }
    assert_eq!(read(&[&program, b"."]).expect("reads").values.len(), 1001);
    // A list in itself.
    assert_eq!(read(&[b"]q\x00h\x00a."]).expect("reads").values.len(), 1);
    let many = vec![b'N'; VALUES + 1];
    assert_eq!(read(&[&many, b"."]).expect_err("refused"), PickleError::Large { limit: VALUES, what: "values" });
    assert!(matches!(read(&[&vec![b'('; BYTES], b"."]), Err(PickleError::Large { what: "bytes", .. })));
}

#[test]
fn integers_are_of_two_s_complement() {
    for (bytes, expected) in [(&b""[..], 0), (b"\xff", -1), (b"\x00\x01", 256), (b"\x80", -128)] {
        let program = [b"\x8a", &[bytes.len() as u8][..], bytes, b"."].concat();
        assert!(matches!(Pickle::read(&program).expect("reads").root(), Value::Int(n) if *n == expected), "{bytes:?}");
    }
}
