#![no_main]

#[path = "../mutators/zip.rs"]
mod zip;

libfuzzer_sys::fuzz_target!(|input: &[u8]| proving_ground_fuzz::archive(input));

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, _max_size: usize, seed: u32| {
    zip::mutate(data, size, seed, |bytes, len| libfuzzer_sys::fuzzer_mutate(bytes, len, bytes.len()))
});
