use super::*;

#[test]
fn each_address_is_given_once_and_can_be_listened_on() {
    let addresses: Vec<Ipv4Addr> = (0..300).map(|_| loopback_address()).collect();
    let different: std::collections::BTreeSet<_> = addresses.iter().collect();
    assert_eq!(different.len(), addresses.len());
    assert!(addresses.iter().all(|address| address.is_loopback() && *address != Ipv4Addr::LOCALHOST));
    let listener = TcpListener::bind((addresses[0], 20_160)).expect("its ports are free");
    assert!(std::net::TcpStream::connect(listener.local_addr().expect("bound")).is_ok());
}
