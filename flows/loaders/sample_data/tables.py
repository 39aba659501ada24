"""The raw tables that sample data fills, as Airbyte lays them out."""

from __future__ import annotations

from flows.warehouses.raw_tables import RawTable

MONEY = "numeric(18,2)"
# Airbyte's columns since its destinations v2, and before.
NEW_SYNC = (("_airbyte_raw_id", "varchar"), ("_airbyte_extracted_at", "timestamp"))
OLD_SYNC = (("_airbyte_ab_id", "varchar"), ("_airbyte_emitted_at", "timestamp"))

TABLES = (
    RawTable(
        "google_ads_campaigns",
        (
            ("campaign_id", "bigint"),
            ("campaign_name", "varchar"),
            ("campaign_status", "varchar"),
            ("advertising_channel_type", "varchar"),
            ("campaign_budget_amount_micros", "bigint"),
            ("campaign_start_date", "date"),
            *NEW_SYNC,
        ),
    ),
    RawTable(
        "google_ads_campaign_performance",
        (
            ("campaign_id", "bigint"),
            ("segments_date", "date"),
            ("metrics_impressions", "bigint"),
            ("metrics_clicks", "bigint"),
            ("metrics_cost_micros", "bigint"),
            ("metrics_conversions", MONEY),
            ("metrics_conversions_value", MONEY),
            *NEW_SYNC,
        ),
    ),
    RawTable(
        "facebook_ads_campaigns",
        (
            ("id", "varchar"),
            ("name", "varchar"),
            ("status", "varchar"),
            ("objective", "varchar"),
            ("created_time", "timestamp"),
            ("daily_budget_cents", "bigint"),
            *NEW_SYNC,
        ),
    ),
    RawTable(
        "facebook_ads_insights",
        (
            ("campaign_id", "varchar"),
            ("date_start", "date"),
            ("impressions", "bigint"),
            ("clicks", "bigint"),
            ("spend", MONEY),
            ("conversions", MONEY),
            ("conversion_value", MONEY),
            *NEW_SYNC,
        ),
    ),
    RawTable(
        "supabase_musician",
        (
            ("musician_id", "bigint"),
            ("first_name", "varchar"),
            ("last_name", "varchar"),
            ("email", "varchar"),
            ("instrument", "varchar"),
            ("is_active", "boolean"),
            ("hired_on", "date"),
            ("updated_at", "timestamp"),
            *OLD_SYNC,
        ),
    ),
    RawTable(
        "supabase_concert",
        (
            ("concert_id", "bigint"),
            ("title", "varchar"),
            ("venue", "varchar"),
            ("concert_date", "date"),
            ("season", "varchar"),
            ("updated_at", "timestamp"),
            *OLD_SYNC,
        ),
    ),
    RawTable(
        "supabase_service",
        (
            ("service_id", "bigint"),
            ("concert_id", "bigint"),
            ("service_type", "varchar"),
            ("starts_at", "timestamp"),
            ("duration_minutes", "integer"),
            ("updated_at", "timestamp"),
            *OLD_SYNC,
        ),
    ),
    RawTable(
        "supabase_contract",
        (
            ("contract_id", "bigint"),
            ("concert_id", "bigint"),
            ("musician_id", "bigint"),
            ("pay_type", "varchar"),
            ("rate_per_service", MONEY),
            ("flat_fee", MONEY),
            ("required_services", "integer"),
            ("deduction_per_missed_service", MONEY),
            ("updated_at", "timestamp"),
            *OLD_SYNC,
        ),
    ),
    RawTable(
        "supabase_attendance",
        (
            ("attendance_id", "bigint"),
            ("service_id", "bigint"),
            ("musician_id", "bigint"),
            ("status", "varchar"),
            ("effective_from", "timestamp"),
            ("recorded_at", "timestamp"),
            ("updated_at", "timestamp"),
            *OLD_SYNC,
        ),
    ),
    RawTable(
        "supabase_payment",
        (
            ("payment_id", "bigint"),
            ("concert_id", "bigint"),
            ("musician_id", "bigint"),
            ("gross_amount", MONEY),
            ("deductions", MONEY),
            ("net_amount", MONEY),
            ("paid", "boolean"),
            ("payment_date", "date"),
            ("updated_at", "timestamp"),
            *OLD_SYNC,
        ),
    ),
)
