//! Which uid each role runs under.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use ipc::Role;
use nix::unistd::{Group, User, getegid, geteuid};

/// Uids taken when neither the package's users exist nor a base is configured: far above people,
/// below what containers map.
const DEFAULT_BASE: u32 = 60_100;

/// The group whose members may give orders on the control sockets.
const ADMIN_GROUP: &str = "mox-admin";

/// A uid and its gid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Everyone's.
#[derive(Debug, Clone)]
pub(crate) struct Identities {
    /// Absent without root: one wall less, and the log says so.
    roles: Option<BTreeMap<Role, Identity>>,
    /// Our own.
    pub(crate) own: Identity,
    /// Of [`ADMIN_GROUP`], if there is one.
    pub(crate) admin_group: Option<u32>,
}

impl Identities {
    /// Looks the users up: `_mox-ROLE` where it exists, else `base` plus the role's number.
    pub(crate) fn find(base: Option<u32>) -> anyhow::Result<Self> {
        let own = Identity { uid: geteuid().as_raw(), gid: getegid().as_raw() };
        let admin_group = Group::from_name(ADMIN_GROUP).context("look up the group mox-admin")?;
        let admin_group = admin_group.map(|group| group.gid.as_raw());
        if own.uid != 0 {
            return Ok(Self { roles: None, own, admin_group });
        }
        let mut roles = BTreeMap::new();
        for role in Role::ALL {
            let name = format!("_mox-{role}");
            let user = User::from_name(&name).with_context(|| format!("look up user {name}"))?;
            let identity = match user {
                Some(user) => Identity { uid: user.uid.as_raw(), gid: user.gid.as_raw() },
                None => {
                    let id = base.unwrap_or(DEFAULT_BASE) + u32::from(role.number());
                    Identity { uid: id, gid: id }
                }
            };
            if identity.uid == 0 || identity.gid == 0 {
                bail!("user {name} is root; nothing of mox but moxd may be");
            }
            if let Some((other, _)) = roles.iter().find(|(_, other)| **other == identity) {
                bail!("{role} and {other} share uid {}; each needs its own", identity.uid);
            }
            roles.insert(role, identity);
        }
        Ok(Self { roles: Some(roles), own, admin_group })
    }

    /// Whether all processes share one uid.
    pub(crate) fn without_root(&self) -> bool {
        self.roles.is_none()
    }

    /// The identity a role is given; `None` is ours.
    pub(crate) fn given(&self, role: Role) -> Option<Identity> {
        self.roles.as_ref().and_then(|roles| roles.get(&role)).copied()
    }

    /// The identity a role has.
    pub(crate) fn of(&self, role: Role) -> Identity {
        self.given(role).unwrap_or(self.own)
    }

    /// The uids that may give orders, for the vaults: root, ours, and the members of the group.
    pub(crate) fn admins(&self) -> Vec<u32> {
        let mut uids = vec![0, self.own.uid];
        let group = self.admin_group.and_then(|gid| Group::from_gid(gid.into()).ok().flatten());
        for member in group.iter().flat_map(|group| &group.mem) {
            if let Ok(Some(user)) = User::from_name(member) {
                uids.push(user.uid.as_raw());
            }
        }
        uids.sort_unstable();
        uids.dedup();
        uids
    }

    /// Whether a process of this uid and gid may give orders.
    pub(crate) fn may_give_orders(&self, uid: u32, gid: u32) -> bool {
        if uid == 0 || uid == self.own.uid {
            return true;
        }
        let Some(admin) = self.admin_group else { return false };
        if gid == admin {
            return true;
        }
        self.admins().contains(&uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_differs_and_none_is_root() {
        let found = Identities::find(Some(61_000)).unwrap();
        if found.without_root() {
            assert_eq!(found.of(Role::Parser), found.own);
            return;
        }
        for (n, role) in Role::ALL.into_iter().enumerate() {
            assert_ne!(found.of(role).uid, 0);
            for other in &Role::ALL[n + 1..] {
                assert_ne!(found.of(role).uid, found.of(*other).uid);
            }
        }
    }

    #[test]
    fn strangers_give_no_orders() {
        let own = Identity { uid: 1000, gid: 1000 };
        let identities = Identities { roles: None, own, admin_group: Some(77) };
        assert!(identities.may_give_orders(0, 0));
        assert!(identities.may_give_orders(1000, 5));
        assert!(identities.may_give_orders(1234, 77));
        assert!(!identities.may_give_orders(1234, 78));
        let nobody = Identities { admin_group: None, ..identities };
        assert!(!nobody.may_give_orders(1234, 77));
    }
}
