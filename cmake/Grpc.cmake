# gRPC and protobuf, static and hidden: the control-plane binaries run on distributions without them, and export no
# protobuf symbol (libtorch_cpu.so exports its own; the two must never meet in one process).
find_package(OpenSSL REQUIRED)
find_package(ZLIB REQUIRED)
find_package(Threads REQUIRED)
foreach(name grpc++ grpc upb gpr address_sorting protobuf re2 cares grpc++_reflection yaml-cpp sqlite3)
  find_library(archive_${name} NAMES lib${name}.a REQUIRED)
  add_library(tandem::${name} STATIC IMPORTED)
  set_target_properties(tandem::${name} PROPERTIES IMPORTED_LOCATION "${archive_${name}}")
endforeach()
get_filename_component(archive_dir "${archive_grpc}" DIRECTORY)
file(GLOB absl "${archive_dir}/libabsl_*.a")
list(FILTER absl EXCLUDE REGEX "_(flags|test)_|leak_check|failure_signal")
string(REPLACE ";" "," absl "${absl}")
add_library(tandem_grpc INTERFACE)
target_link_options(tandem_grpc INTERFACE "LINKER:--disable-new-dtags")
# Under the fuzzer's static sanitizer this would hide its malloc from libstdc++: every string would be a bad free.
if(NOT TANDEM_WITH_FUZZ)
  target_link_options(tandem_grpc INTERFACE "LINKER:--exclude-libs,ALL")
endif()
# Reflection registers itself in static constructors, so it is linked whole.
target_link_libraries(tandem_grpc INTERFACE
  "$<LINK_LIBRARY:WHOLE_ARCHIVE,tandem::grpc++_reflection>"
  "$<LINK_GROUP:RESCAN,tandem::grpc++,tandem::grpc,tandem::upb,tandem::gpr,tandem::address_sorting,tandem::protobuf,tandem::re2,tandem::cares,${absl}>"
  OpenSSL::SSL OpenSSL::Crypto ZLIB::ZLIB Threads::Threads ${CMAKE_DL_LIBS})
find_program(PROTOC protoc REQUIRED)
find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
find_library(PROMETHEUS_CORE prometheus-cpp-core REQUIRED)
find_library(PROMETHEUS_PULL prometheus-cpp-pull REQUIRED)
add_library(tandem_prometheus INTERFACE)
target_link_libraries(tandem_prometheus INTERFACE ${PROMETHEUS_PULL} ${PROMETHEUS_CORE})
