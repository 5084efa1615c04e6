//! httpd admin's right ends with the password it was had by.

use super::{Bench, on_a_local_set, set_peer};
use ipc::{
    Role,
    capnp::{self, traits::HasTypeId as _},
    schema::{
        accountd_capnp::admin_door,
        auth_capnp::admin_outcome,
        control_capnp::{account_admin, problem},
    },
};

async fn set_password(admin: &account_admin::Client, password: &str) {
    let mut request = admin.admin_password_request();
    request.get().set_password(password);
    let response = request.send().promise.await.unwrap();
    let problem = response.get().unwrap().get_problem().unwrap();
    assert_eq!(problem.get_kind().unwrap(), problem::Kind::None, "{:?}", problem.get_text());
}

async fn log_in(door: &admin_door::Client, password: &str) -> Option<account_admin::Client> {
    let mut request = door.login_request();
    set_peer(request.get().init_peer());
    request.get().set_password(password);
    let response = request.send().promise.await.unwrap();
    match response.get().unwrap().get_outcome().unwrap().which().unwrap() {
        admin_outcome::Which::Admin(admin) => Some(admin.unwrap()),
        admin_outcome::Which::Failure(_) => None,
    }
}

#[test]
fn a_changed_password_ends_what_was_had_by_the_old_one() {
    on_a_local_set(async {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(folder.path());
        let control = bench.admin().await;
        set_password(&control, "sesame sesame").await;
        let door: admin_door::Client = bench.door(Role::HttpdAdmin, 0).await;
        let web = log_in(&door, "sesame sesame").await.unwrap();
        assert!(web.domains_request().send().promise.await.is_ok());

        set_password(&control, "open open open").await;
        // Whatever is asked for by number, so that no method is left out that comes later.
        let mut method = 0;
        loop {
            type Any = capnp::any_pointer::Owned;
            let call =
                web.client.new_call::<Any, Any>(account_admin::Client::TYPE_ID, method, None);
            let error = call.send().promise.await.err().unwrap();
            if error.kind == capnp::ErrorKind::Unimplemented {
                break;
            }
            assert!(error.to_string().contains("password was changed"), "{method}: {error}");
            method += 1;
        }
        assert!(method >= 23);

        // moxctl's does not rest on a password; the new one opens.
        assert!(control.domains_request().send().promise.await.is_ok());
        assert!(log_in(&door, "sesame sesame").await.is_none());
        let web = log_in(&door, "open open open").await.unwrap();
        assert!(web.domains_request().send().promise.await.is_ok());
        bench.stop().await;
    });
}
