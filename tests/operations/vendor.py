"""Call operations through the vendor's unmodified client."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from alibabacloud_cloudauth20190307 import models as models_2019
from alibabacloud_cloudauth20190307.client import Client as Client2019
from alibabacloud_cloudauth_intl20220809 import models as models_2022
from alibabacloud_cloudauth_intl20220809.client import Client as Client2022
from alibabacloud_tea_openapi.utils_models import Config
from darabonba.runtime import ExtendsParameters, RuntimeOptions
from Tea.exceptions import TeaException

METHODS = {
    "FaceCompare": "face_compare_",
    "FaceCrossCompareIntl": "face_cross_compare_intl_",
    "FaceDuplicationCheckIntl": "face_duplication_check_intl_",
    "AddFaceRecord": "add_face_record_",
    "QueryFaceGroup": "query_face_group_",
    "ModifyFaceGroup": "modify_face_group_",
    "DeleteFaceGroup": "delete_face_group_",
    "QueryFaceRecord": "query_face_record_",
    "DeleteFaceRecord": "delete_face_record_",
    "DeleteFaceRecordV2": "delete_face_record_v2",  # the package spells it so
}


class VendorClient:
    """Calls operations as `operations.cases.Call`; answers come from the vendor's models."""

    def __init__(self, port: int, key: str, secret: str, **settings: Any) -> None:
        def config() -> Config:
            return Config(
                access_key_id=key,
                access_key_secret=secret,
                region_id="local",
                endpoint=f"127.0.0.1:{port}",
                protocol="HTTP",
                **settings,
            )

        self.current = Client2022(config())
        self.current._open_platform_endpoint = f"127.0.0.1:{port}"
        self.older = Client2019(config())

    def __call__(self, name: str, params: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        try:
            response = self._send(name, dict(params))
        except TeaException as error:
            if error.data is None:  # no answer from the server
                raise
            body = dict(error.data)
            return body.pop("statusCode", error.statusCode), body
        assert response.body is not None, "the vendor's model could not read the body"
        return response.status_code, response.body.to_map()

    def _send(self, name: str, params: dict[str, Any]) -> Any:
        file = params.pop("FacePictureFileObject", None)
        if isinstance(file, io.BytesIO):
            request = models_2022.AddFaceRecordAdvanceRequest().from_map(params)
            request.face_picture_file_object = file
            return self.current.add_face_record_advance(request, _runtime(request, params))
        if name == "CompareFaces":
            request = models_2019.CompareFacesRequest().from_map(params)
            return self.older.compare_faces_with_options(request, _runtime(request, params))
        request = getattr(models_2022, f"{name}Request")().from_map(params)
        method = getattr(self.current, f"{METHODS[name]}with_options")
        return method(request, _runtime(request, params))


def _runtime(request: Any, params: Mapping[str, Any]) -> RuntimeOptions:
    """Put parameters that the model does not have into the query."""
    more = {name: str(value) for name, value in params.items() if name not in request.to_map()}
    return RuntimeOptions(
        read_timeout=60_000, extends_parameters=ExtendsParameters(queries=more, headers={})
    )
