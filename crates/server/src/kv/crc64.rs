//! CRC-64/XZ, which checksums of raw data are made of in TiKV's protocol: the polynomial of ECMA-182 with reflected
//! input and output, and a register of ones before and after.

/// The polynomial, reflected.
const POLYNOMIAL: u64 = 0xC96C_5795_D787_0F42;

const TABLE: [u64; 256] = table();

const fn table() -> [u64; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut register = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            register = (register >> 1) ^ if register & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[byte] = register;
        byte += 1;
    }
    table
}

/// The checksum of the parts, one behind the other.
pub(super) fn crc64(parts: &[&[u8]]) -> u64 {
    let mut register = u64::MAX;
    for byte in parts.iter().flat_map(|part| part.iter()) {
        // The low byte of the register picks the entry.
        register = TABLE[(register as u8 ^ byte) as usize] ^ (register >> 8);
    }
    !register
}

#[cfg(test)]
#[path = "crc64_test.rs"]
mod tests;
