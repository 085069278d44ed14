"""What KIS answers, as the body of a response."""

from __future__ import annotations

PRICE = "/uapi/domestic-stock/v1/quotations/inquire-price"
"""The path of the current price of a stock, the request that most tests make."""

GOOD_CODE = "MCA00000"
EXPIRED_CODE = "EGW00123"

GOOD = {"rt_cd": "0", "msg_cd": GOOD_CODE, "msg1": "정상처리 되었습니다."}
EXPIRED = {"rt_cd": "1", "msg_cd": EXPIRED_CODE, "msg1": "기간이 만료된 token 입니다."}
