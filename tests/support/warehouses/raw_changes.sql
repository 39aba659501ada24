-- The next sync, of 11 March 2026, 02:00, with everything that arrives late.

-- Marketing: a new day; a day of January restated; a day of January seen for the first time; and a row that was
-- extracted before its day's newest row, but reached the warehouse after it.
insert into raw.google_ads_campaign_performance values
    (101, '2026-03-10', 11, 1, 990000, 0, 0, 'q1', '2026-03-11 02:00:00'),
    (101, '2026-01-05', 1001, 33, 1240000, 3.00, 31.00, 'q2', '2026-03-11 02:00:00'),
    (102, '2026-01-06', 40, 4, 400000, 0, 0, 'q3', '2026-03-11 02:00:00'),
    (102, '2026-03-08', 5, 0, 0, 0, 0, 'q4', '2026-03-09 02:00:00');
insert into raw.facebook_ads_insights values
    ('fb_1', '2026-01-05', 129, 2, 0.03, 0, 0, 'j1', '2026-01-07 01:30:00');

-- Payroll: an old excuse becomes a presence, so a payment changes; a record made before the one that is known
-- arrives after it; musician 2 changes, musician 6 is gone; concert 2's missing payment is recorded.
insert into raw.supabase_attendance values
    (23, 12, 1, 'present', '2026-02-19 18:00:00', '2026-03-10 09:00:00', '2026-03-10 09:00:00', 'z01', '2026-03-11 02:00:00'),
    (24, 31, 1, 'absent', '2026-03-09 18:00:00', '2026-03-09 18:01:00', '2026-03-09 18:01:00', 'z02', '2026-03-11 02:00:00'),
    (25, 13, 2, 'present', '2026-02-20 19:00:00', '2026-03-10 09:05:00', '2026-03-10 09:05:00', 'z03', '2026-03-11 02:00:00');
update raw.supabase_payment set gross_amount = 240.00, net_amount = 240.00, updated_at = '2026-03-10 10:00:00' where payment_id = 1;
update raw.supabase_payment set deductions = 50.25, net_amount = 249.75, updated_at = '2026-03-10 10:00:00' where payment_id = 2;
insert into raw.supabase_payment values
    (6, 2, 5, 199.98, 0.00, 199.98, false, null, '2026-03-10 10:00:00', 'y6', '2026-03-11 02:00:00');
update raw.supabase_musician set email = 'musician-0002@example.com', updated_at = '2026-03-10 11:00:00' where musician_id = 2;
delete from raw.supabase_contract where musician_id = 6;
delete from raw.supabase_musician where musician_id = 6;
update raw.supabase_service set _airbyte_emitted_at = '2026-03-11 02:00:00';
