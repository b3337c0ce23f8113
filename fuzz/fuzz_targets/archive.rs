#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| proving_ground_fuzz::archive(input));
