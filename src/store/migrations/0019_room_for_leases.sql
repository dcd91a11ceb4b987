-- Room beside a lease for what it becomes. With pages filled to 75 % two of three moves from PENDING to ACTIVE found none, went to another page, and wrote all of the table's indexes once more.
alter table lease set (fillfactor = 50);

-- Live leases of a path, of a principal in it, and in an order in which RevokeLeases goes on page by page: by the primary key each page read all leases there are.
-- (Made before the old one goes, so that leases can be read meanwhile.)
create index lease_live_in_order on lease (path, principal, id) where live and not shelf;
drop index lease_live_by_role;
alter index lease_live_in_order rename to lease_live_by_role;

-- Live leases behind a place in that order, up to `p_to`; `p_principal` empty: of anybody. With its own settings, since plans are kept: one that was made when the table was small sorted all of it for every page.
create function revocable_leases(p_after_path text, p_after_principal text, p_after_id uuid, p_to text, p_principal text, p_before timestamptz, p_limit integer)
returns table (id uuid, path text, principal text) language sql stable set enable_sort = off set enable_incremental_sort = off set enable_bitmapscan = off as $$
  select l.id, l.path, l.principal from lease l
    where l.live and not l.shelf and (l.path, l.principal, l.id) > (p_after_path, p_after_principal, p_after_id) and l.path < p_to and (p_principal = '' or l.principal = p_principal)
      and l.state in ('PENDING', 'ACTIVE') and l.issued_at <= p_before
    order by l.path, l.principal, l.id limit p_limit
$$;
