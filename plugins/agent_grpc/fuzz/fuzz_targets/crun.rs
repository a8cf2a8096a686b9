#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vc_agent_fuzz::crun::check(data));
