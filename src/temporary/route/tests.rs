use super::*;

const TEXT: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
    eth0\t00000000\t010010AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
    tap0\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

fn route(address: [u8; 4], bits: u32) -> Route {
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    (Ipv4Addr::from(address).into(), mask)
}

#[test]
fn the_kernels_table_is_read() {
    let expected = [route([0, 0, 0, 0], 0), route([10, 77, 0, 0], 24)];
    assert_eq!(parse(TEXT), expected);
}

#[test]
fn used_subnets_are_skipped() {
    let server = |routes: &[Route]| first_free(routes).map(|subnet| subnet.server.to_string());
    assert_eq!(server(&[]).unwrap(), "10.77.0.1");
    assert_eq!(server(&[route([0, 0, 0, 0], 0)]).unwrap(), "10.77.0.1");
    assert_eq!(server(&[route([10, 77, 0, 0], 30)]).unwrap(), "10.77.0.5");
    assert_eq!(server(&[route([10, 77, 0, 6], 32)]).unwrap(), "10.77.0.1");
    let vpn = [route([10, 0, 0, 0], 8), route([192, 168, 77, 3], 32)];
    assert_eq!(server(&vpn).unwrap(), "192.168.77.5");
    let halves = [route([0, 0, 0, 0], 1), route([128, 0, 0, 0], 1)];
    assert_eq!(server(&halves), None);
}
