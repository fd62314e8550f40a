#if canImport(CoreML)
import Foundation
import MViTKit

/// Why a model or a picture cannot be used, in one line each.
public enum ModelError: Error, Hashable, Sendable, CustomStringConvertible, LocalizedError {
  /// Core ML refused to compile or load a model.
  case unloadable(name: String, reason: String)
  /// A model without an image input.
  case noImageInput
  /// A model whose input is not what its metadata says.
  case inputMismatch(declared: PixelSize, found: PixelSize)
  /// A function other than the default one, on a system without multifunction packages.
  case functionNeedsNewerSystem(String)
  /// A classifier that names no classes.
  case noLabels
  /// An output that the metadata promises and the model lacks.
  case missingOutput(String)
  /// A model that answers neither classes nor class maps.
  case unsupportedOutput(String)
  /// A model asked for what it does not answer.
  case wrongTask(asked: String)
  /// A file that Image I/O cannot decode.
  case undecodable(String)
  /// A pixel buffer in another format than 32BGRA.
  case pixelFormat(UInt32)
  /// Core Video or Core Graphics refused memory.
  case noBuffer(String)

  /// One line for the user.
  public var description: String {
    switch self {
    case .unloadable(let name, let reason):
      "Core ML cannot load \(name): \(reason)"
    case .noImageInput:
      "The model takes no image; convert it with mvit-coreml."
    case .inputMismatch(let declared, let found):
      "The model takes \(found.description) pixels but its metadata says "
        + "\(declared.description); convert it again."
    case .functionNeedsNewerSystem(let name):
      "The function \(name) of this package needs iOS 18 or macOS 15."
    case .noLabels:
      "The model names no classes; convert it with --labels."
    case .missingOutput(let name):
      "The model has no output \(name), which its metadata promises; convert it again."
    case .unsupportedOutput(let kind):
      "The model answers \(kind); classification and segmentation are supported."
    case .wrongTask(let asked):
      "The model does not answer with a \(asked)."
    case .undecodable(let what):
      "\(what) is no picture that this system can decode."
    case .pixelFormat(let format):
      "The pixel buffer has format \(Self.fourCharacters(format)); 32BGRA is needed."
    case .noBuffer(let what):
      "There is not enough memory for \(what)."
    }
  }

  /// One line for the user.
  public var errorDescription: String? { description }

  private static func fourCharacters(_ format: UInt32) -> String {
    let bytes = (0..<4).map { UInt8(truncatingIfNeeded: format >> (24 - 8 * $0)) }
    let printable = bytes.allSatisfy { (32..<127).contains($0) }
    return printable ? String(decoding: bytes, as: UTF8.self) : String(format)
  }
}
#endif
