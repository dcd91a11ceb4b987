-- Room beside a lease for what it becomes. With pages filled to 75 % two of three moves from PENDING to ACTIVE found none, went to another page, and wrote all of the table's indexes once more.
alter table lease set (fillfactor = 50);

-- Live leases of a path, of a principal in it, and in an order in which RevokeLeases goes on page by page: by the primary key each page read all leases there are.
drop index lease_live_by_role;
create index lease_live_by_role on lease (path, principal, id) where live and not shelf;
