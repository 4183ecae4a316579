// Arrays of NumPy and torch as the kernels take and give them.
//
// torch offers its tensors to C++ without a copy and without Python (DLPack's C exchange API, from
// torch 2.10 on); everything else comes through the buffer protocol. The few structs of the API are
// declared here: https://dmlc.github.io/dlpack/latest/c_api.html
#pragma once
#include <nanobind/nanobind.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "pool.h"

namespace hiddenstate {

namespace nb = nanobind;
using i64 = std::int64_t;

struct ExchangeAPI;

// An array that was given: checked for its type, its axes and its sizes before its pointer is used.
class Input {
 public:
  // Raises ValueError for what is no array of numbers in memory; `name` is what the message says.
  Input(nb::handle object, const char* name);
  ~Input();
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;

  char kind() const { return kind_; }  // f: float32, d: float64, q: int64
  const std::string& name() const { return name_; }
  const ExchangeAPI* exchange() const { return exchange_; }
  void require(char kind, std::initializer_list<i64> shape) const;
  i64 shape(int axis) const { return shape_[static_cast<std::size_t>(axis)]; }
  i64 stride(int axis) const { return strides_[static_cast<std::size_t>(axis)]; }
  int axes() const { return static_cast<int>(shape_.size()); }
  std::string text() const;  // "float32 [3, 5]"

  // The data, with the last `dense` axes dense; copied into memory of its own where it is not so.
  template <class T> const T* data(int dense) {
    make_dense(dense);
    return static_cast<const T*>(data_);
  }

 private:
  void make_dense(int dense);

  std::string name_;
  char kind_ = 0;
  void* data_ = nullptr;
  std::vector<i64> shape_, strides_;
  const ExchangeAPI* exchange_ = nullptr;
  Py_buffer buffer_{};
  bool holds_buffer_ = false;
  Block copy_{};
};

// A new array that is given back to Python, a torch tensor where the inputs are.
class Output {
 public:
  Output(char kind, std::vector<i64> shape, std::vector<i64> strides = {});
  ~Output() { give_block(block_); }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  template <class T> T* data() const { return reinterpret_cast<T*>(block_.data); }
  nb::object release(const ExchangeAPI* exchange);

 private:
  char kind_;
  std::vector<i64> shape_, strides_;
  Block block_;
};

template <class T> constexpr char kind_of = sizeof(T) == 4 ? 'f' : 'd';

// Raises ValueError.
[[noreturn]] void refuse(const std::string& message);

}  // namespace hiddenstate
